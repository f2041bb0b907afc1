package materializers

import "github.com/micromegas-go/micromegas/schemas/catalog/ownership"

// SetHook makes hook be called between any two steps of a commit or merge; its error is a crash there.
func (m *Materializers) SetHook(hook func(at string) error) { m.hook = hook }

// SetOwnership changes how leases are kept.
func (m *Materializers) SetOwnership(c ownership.Config) {
	m.keep(ownership.NewKeeper(c, m.catalog, m.owner, m.log))
}

// LeaseName is the name of a shard's lease.
var LeaseName = leaseName

// BucketOf is the bucket of a row.
var BucketOf = bucketOf
