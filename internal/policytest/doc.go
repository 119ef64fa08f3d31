// Package policytest reads and runs policy cases: TOML files that hold lists
// and, as `[[case]]` tables, what those lists have to decide. The same files
// are run against package policy, by `rootcell policy test` and end to end with
// real requests; checks/README.md documents the format.
package policytest
