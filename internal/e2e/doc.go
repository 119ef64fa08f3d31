// Package e2e runs the real firewall binary behind the real ruleset in network namespaces and attacks it from the agent's
// side with real clients. Every denial is asserted at the far side: the world beyond the firewall saw nothing.
package e2e
