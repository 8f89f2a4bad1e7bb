package idemui

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

const (
	// scanLimit is how long a page scans, so that it is there before a reader gives up.
	scanLimit = 10 * time.Second
	// listLimit is how many entries a page lists.
	listLimit = 200
)

// scan calls each for entries until that reports false, and says why it stopped early.
func (u *ui) scan(r *http.Request, f idempotent.Filter, each func(*idempotent.Entry) bool) (cut string, err error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), scanLimit, errScanLimit)
	defer cancel()
	for e, err := range u.inspector.List(ctx, f) {
		if err != nil {
			if errors.Is(context.Cause(ctx), errScanLimit) {
				return fmt.Sprintf("The scan stopped after %v; there may be more.", scanLimit), nil
			}
			return "", err
		}
		if !each(&e) {
			return "", nil
		}
	}
	return "", nil
}

var errScanLimit = errors.New("the scan took too long")

// A group is one row of the overview.
type group struct {
	Namespace string
	State     idempotent.State
	Count     int
	Bytes     int64
	Oldest    time.Duration
	ages      [len(ages)]int
}

// ages are the buckets of the small bars.
var ages = [...]struct {
	name  string
	below time.Duration
}{
	{"below 1 minute", time.Minute}, {"below 1 hour", time.Hour}, {"below 6 hours", 6 * time.Hour}, {"below 1 day", 24 * time.Hour}, {"older", 1<<63 - 1},
}

// A Bar is one bucket of ages as a bar: X and Height are in units of the drawing.
type Bar struct {
	X, Y, Height int
	Title        string
}

const barHeight = 20

// Bars returns the ages of a group, the highest bar as high as the drawing.
func (g *group) Bars() (bars []Bar) {
	most := max(1, slices.Max(g.ages[:]))
	for i, n := range g.ages {
		height := n * barHeight / most
		if n > 0 {
			height = max(height, 2)
		}
		bars = append(bars, Bar{X: i * 10, Y: barHeight - height, Height: height, Title: fmt.Sprintf("%s: %d", ages[i].name, n)})
	}
	return bars
}

// Ages says what the bars show, for readers who do not see them.
func (g *group) Ages() string {
	var parts []string
	for i, n := range g.ages {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", ages[i].name, n))
		}
	}
	return strings.Join(parts, ", ")
}

func (g *group) add(e *idempotent.Entry) {
	g.Count++
	g.Bytes += int64(e.Size)
	g.Oldest = max(g.Oldest, e.Age)
	if e.State != idempotent.StateUnreadable {
		for i := range ages {
			if e.Age < ages[i].below {
				g.ages[i]++
				break
			}
		}
	}
}

func (u *ui) overview(w http.ResponseWriter, r *http.Request, _ string) {
	type name struct {
		namespace string
		state     idempotent.State
	}
	v, groups := view{}, make(map[name]*group)
	cut, err := u.scan(r, idempotent.Filter{}, func(e *idempotent.Entry) bool {
		n := name{e.Namespace, e.State}
		if groups[n] == nil {
			groups[n] = &group{Namespace: e.Namespace, State: e.State}
			v.Groups = append(v.Groups, groups[n])
		}
		groups[n].add(e)
		v.Total++
		return true
	})
	slices.SortFunc(v.Groups, func(x, y *group) int {
		if n := strings.Compare(x.Namespace, y.Namespace); n != 0 {
			return n
		}
		return slices.Index(states, x.State) - slices.Index(states, y.State)
	})
	v.Cut = cut
	u.finish(w, r, v, err)
}

// finish draws a page, with what went wrong.
func (u *ui) finish(w http.ResponseWriter, r *http.Request, v view, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, idempotent.ErrInvalidOption), errors.Is(err, idempotent.ErrInvalidKey):
		status = http.StatusBadRequest
	case err != nil:
		status = http.StatusBadGateway
	}
	if err != nil {
		v.Problem = present.Error(err)
	}
	u.show(w, r, status, v)
}

func (u *ui) list(w http.ResponseWriter, r *http.Request, _ string) {
	form := filter{r.Form.Get("namespace"), r.Form.Get("prefix"), r.Form.Get("state"), r.Form.Get("owner"), r.Form.Get("older")}
	v := view{Listing: true, Filter: form}
	f, err := form.filter()
	if err != nil {
		u.finish(w, r, v, err)
		return
	}
	v.Cut, err = u.scan(r, f, func(e *idempotent.Entry) bool {
		if len(v.Entries) == listLimit {
			v.Note = fmt.Sprintf("The first %d that the scan found; there are more.", listLimit)
			return false
		}
		v.Entries = append(v.Entries, *e)
		return true
	})
	slices.SortFunc(v.Entries, func(x, y idempotent.Entry) int {
		if n := strings.Compare(x.Namespace, y.Namespace); n != 0 {
			return n
		}
		return strings.Compare(x.Key, y.Key)
	})
	u.finish(w, r, v, err)
}

func (f filter) filter() (found idempotent.Filter, err error) {
	found = idempotent.Filter{Namespace: f.Namespace, KeyPrefix: f.Prefix, Owner: f.Owner}
	for _, s := range states {
		if f.State == s.String() {
			found.States = []idempotent.State{s}
		}
	}
	if f.State != "" && found.States == nil {
		return found, fmt.Errorf("%w: state is %.50q; allowed: one of the list", idempotent.ErrInvalidOption, f.State)
	}
	if f.Older != "" {
		if found.MinAge, err = time.ParseDuration(f.Older); err != nil {
			return found, fmt.Errorf("%w: older than is %.50q; allowed: a duration such as 5m", idempotent.ErrInvalidOption, f.Older)
		}
	}
	return found, nil
}

// name returns the namespace and key that a request is about.
func name(r *http.Request) (namespace, key string, err error) {
	id, err := base64.RawURLEncoding.DecodeString(r.Form.Get("id"))
	if err != nil {
		return "", "", fmt.Errorf("%w: id is not base64url", idempotent.ErrInvalidKey)
	}
	if plain := r.Form.Get("key"); plain != "" { // typed into the form
		id = []byte(plain)
	}
	return r.Form.Get("namespace"), string(id), nil
}

func (u *ui) key(w http.ResponseWriter, r *http.Request, _ string) {
	v, err := u.one(r, view{})
	if err == nil {
		v.Note = notes[r.Form.Get("done")]
	}
	u.finish(w, r, v, err)
}

// notes are what is said after a redirect.
var notes = map[string]string{"forget": "Forgotten. The next Run runs fn.", "resolve": "Resolved. Every later Run returns the value."}

// one adds the entry that a request is about.
func (u *ui) one(r *http.Request, v view) (view, error) {
	namespace, key, err := name(r)
	if err != nil {
		return v, err
	}
	e, err := u.inspector.Inspect(r.Context(), namespace, key)
	if err != nil {
		return v, err
	}
	v.One = &e
	return v, nil
}
