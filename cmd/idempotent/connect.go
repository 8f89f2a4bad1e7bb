package main

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
)

const defaultURL = "redis://localhost:6379"

// An app is one run of the program: its flags, and what it speaks to.
type app struct {
	*streams
	url, output string
	cluster     bool
	filter      filterFlags
	client      redis.UniversalClient
	inspector   *idempotent.Inspector
}

// connect makes a client for a URL. It sends nothing.
func (a *app) connect(*cobra.Command, []string) (err error) {
	if !slices.Contains([]string{outputTable, outputJSON}, a.output) {
		return usagef("--output is %q; allowed: table, json", a.output)
	}
	if a.client, err = clientOf(cmp.Or(a.url, a.getenv("IDEMPOTENT_REDIS_URL"), defaultURL), a.cluster); err != nil {
		return err
	}
	a.inspector, err = idempotent.NewInspector(a.client)
	return err
}

func (a *app) close() {
	if a.client != nil {
		_ = a.client.Close()
	}
}

// clientOf reads the URL of a single server, of a Cluster's node, or of Sentinels. The text of an error does not hold the
// URL, which may hold a password.
func clientOf(address string, cluster bool) (redis.UniversalClient, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, usagef("--url cannot be read; allowed: %s", urlForms)
	}
	scheme, rest, _ := strings.Cut(address, "://")
	switch {
	case strings.HasPrefix(scheme, "redis") && strings.HasSuffix(scheme, "+cluster"), cluster:
		o, err := redis.ParseClusterURL(strings.TrimSuffix(scheme, "+cluster") + "://" + rest)
		if err != nil {
			return nil, unreadable(err)
		}
		return redis.NewClusterClient(o), nil
	case strings.HasSuffix(scheme, "+sentinel"), u.Query().Has("master_name"):
		o, err := redis.ParseFailoverURL(strings.TrimSuffix(scheme, "+sentinel") + "://" + rest)
		if err != nil {
			return nil, unreadable(err)
		}
		if o.MasterName == "" {
			return nil, usagef("--url of a Sentinel has no master_name; allowed: %s", urlForms)
		}
		return redis.NewFailoverClient(o), nil
	}
	o, err := redis.ParseURL(address)
	if err != nil {
		return nil, unreadable(err)
	}
	return redis.NewClient(o), nil
}

const urlForms = "redis:// and rediss:// (one server), redis+cluster:// and rediss+cluster:// (with ?addr=host:port for more nodes), " +
	"redis+sentinel://host:port?master_name=name, unix://path"

// unreadable leaves out what a URL parser quotes.
func unreadable(err error) error {
	if _, quotes := errors.AsType[*url.Error](err); quotes {
		return usagef("--url cannot be read; allowed: %s", urlForms)
	}
	return usagef("--url: %w; allowed: %s", err, urlForms)
}
