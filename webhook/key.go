package webhook

import "github.com/idempotent-go/idempotent"

// idKey is the key of ByID.
func idKey(source, id string) string { return idempotent.HashKey("id", source, id) }
