package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime/metrics"

	"github.com/rootcell-ai/rootcell/internal/control"
)

// Status describes the daemon. It may be called at any time while it serves.
func (d *Daemon) Status() control.Status {
	kinds, grants := d.book.status()
	log := d.audit.Stats()
	cert := d.authority.Certificate()
	sum := sha256.Sum256(cert.Raw)
	return control.Status{
		SchemaVersion: control.Version,
		Instance:      d.config.Instance,
		Version:       d.version,
		Generation:    d.gate.Current().Generation,
		Started:       d.started.UTC(),
		Policy:        kinds,
		Grants:        grants,
		Flows:         control.Flows{HTTPS: d.https.Conns(), SSH: d.ssh.Open()},
		Audit:         control.AuditStatus{Path: d.config.Audit.Path, Written: log.Written, Dropped: log.Dropped, Error: log.Error},
		Memory:        control.MemoryStatus{Heap: heap(), Limit: d.config.Limits.MemoryBytes},
		CA:            control.CAStatus{SHA256: hex.EncodeToString(sum[:]), Expires: cert.NotAfter.UTC()},
	}
}

// heap returns the bytes of live and not yet collected objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
