package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

// A process is an endpoint's process, as the parent sees it.
type process struct {
	*stage.Child
	said      tail // on standard error; to be read once it is gone
	public    string
	operators string
	client    *http.Client
}

// A tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const kept = 4 << 10
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-kept):]
	return len(b), nil
}

// startProcess starts an endpoint, and returns once it listens.
func startProcess(ctx context.Context, env, args []string) (*process, error) {
	cmd, err := stage.Self(append([]string{roleServe, "-leashed", "-public", "127.0.0.1:0", "-operators", "127.0.0.1:0"}, args...)...)
	if err != nil {
		return nil, err
	}
	p := &process{client: &http.Client{Timeout: sceneLimit}}
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &p.said
	var said <-chan string
	if p.Child, said, err = stage.StartSpeaker(cmd); err != nil {
		return nil, err
	}
	select {
	case line, ok := <-said:
		if !ok {
			<-p.Gone
			return nil, fmt.Errorf("the endpoint: %w: %s", stage.ErrGone, p.said.text)
		}
		_, err = fmt.Sscanf(line, "listening for providers at %s and for operators at %s", &p.public, &p.operators)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		p.Stop(2 * grace)
		return nil, err
	}
	return p, nil
}

// get asks the operators' side. found is false for 404.
func (p *process) get(ctx context.Context, path string, into any) (found bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.operators+path, nil)
	if err != nil {
		return false, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, json.NewDecoder(resp.Body).Decode(into)
	case http.StatusNotFound:
		return false, nil
	}
	return false, fmt.Errorf("GET %s: %s", path, resp.Status)
}

// ask asks for an event. What is not known was delivered 0 times.
func (p *process) ask(ctx context.Context, provider, id string) (r webhook.Record, err error) {
	_, err = p.get(ctx, "/api/events/"+provider+"/"+url.PathEscape(id), &r)
	return r, err
}

// find returns the events that a query selects.
func (p *process) find(ctx context.Context, query url.Values) (all []webhook.Record, err error) {
	query.Set("limit", "500")
	for {
		var page struct {
			Events []webhook.Record `json:"events"`
			Next   string           `json:"next"`
		}
		if _, err := p.get(ctx, "/api/events?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Events...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("cursor", page.Next)
	}
}

func (p *process) dead(ctx context.Context) ([]webhook.Record, error) {
	return p.find(ctx, url.Values{"state": {string(webhook.Dead)}})
}

// duplicates returns how many deliveries were of an event that was known.
func (p *process) duplicates(ctx context.Context) (n int, err error) {
	all, err := p.find(ctx, url.Values{})
	for _, r := range all {
		n += r.Deliveries - 1
	}
	return n, err
}

// redrive redrives an event under a name, and returns how many events that queued.
func (p *process) redrive(ctx context.Context, key, name string) (queued int, err error) {
	query := url.Values{"key": {key}, "name": {name}, "per_second": {"1000"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.operators+"/api/redrive?"+query.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("POST /api/redrive: %s", resp.Status)
	}
	var done webhook.Redriven
	err = json.NewDecoder(resp.Body).Decode(&done)
	return done.Queued, err
}

// drained returns the backlog once every event is settled.
func (p *process) drained(ctx context.Context) (b webhook.Backlog, err error) {
	for {
		if _, err = p.get(ctx, "/api/backlog", &b); err != nil {
			return b, err
		}
		if b.Unsettled() == 0 {
			return b, nil
		}
		tick(ctx)
		if ctx.Err() != nil {
			return b, fmt.Errorf("%d events are not settled: %w", b.Unsettled(), context.Cause(ctx))
		}
	}
}
