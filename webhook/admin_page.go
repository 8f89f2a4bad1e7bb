package webhook

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"time"
)

//go:embed page/*.html
var pageFiles embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"time": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04:05.000")
	},
	"json": func(b []byte) string { return string(b) },
}).ParseFS(pageFiles, "page/*.html"))

// index shows the backlog, dead letters in groups, and the events that the query selects. With a source and an id it leads
// to that event.
func (a *admin) index(w http.ResponseWriter, r *http.Request, _ string) error {
	q := r.URL.Query()
	if id := q.Get("id"); id != "" {
		found, err := a.get(r.Context(), Lookup{Source: q.Get("source"), ID: id})
		if err != nil && !errors.Is(err, errUnsealed) {
			return err
		}
		http.Redirect(w, r, "event/"+found.Key, http.StatusSeeOther)
		return nil
	}
	f, _, err := filter(q)
	if err != nil {
		return err
	}
	v := struct {
		Filter  Filter
		State   string
		States  []State
		Backlog Backlog
		Dead    []DeadGroup
		Events  []Record
		Next    string
		Query   string
	}{Filter: f, State: q.Get("state"), States: States()}
	if v.Backlog, err = a.store.Backlog(r.Context()); err != nil {
		return err
	}
	if v.Dead, err = a.DeadLetters(r.Context(), Filter{}); err != nil {
		return err
	}
	if v.Events, v.Next, err = a.store.Find(r.Context(), f, q.Get("cursor"), 50); err != nil {
		return err
	}
	for i := range v.Events {
		a.redacted(&v.Events[i])
	}
	q.Set("cursor", v.Next)
	v.Query = q.Encode()
	return render(w, "index.html", v)
}

// event shows one event with its trail.
func (a *admin) event(w http.ResponseWriter, r *http.Request, _ string) error {
	found, err := a.get(r.Context(), Lookup{Key: r.PathValue("key")})
	if err != nil && !errors.Is(err, errUnsealed) {
		return err
	}
	a.redacted(&found)
	return render(w, "event.html", struct {
		Record
		ReadOnly, HasPayload bool
	}{found, a.cfg.ReadOnly, found.Payload != nil})
}

func render(w http.ResponseWriter, name string, v any) error {
	var page bytes.Buffer // an error halfway must not look like a page
	if err := pages.ExecuteTemplate(&page, name, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes()) // a client that is gone does not need it
	return nil
}
