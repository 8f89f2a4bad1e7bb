package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/demo/webhook/endpoint"
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

// ask asks for an event. What is not known was received 0 times.
func (p *process) ask(ctx context.Context, provider, id string) (a endpoint.Answer, err error) {
	_, err = p.get(ctx, "/events/"+provider+"/"+url.PathEscape(id), &a)
	return a, err
}

func (p *process) dead(ctx context.Context) (letters []endpoint.DeadLetter, err error) {
	_, err = p.get(ctx, "/dead", &letters)
	return letters, err
}

// replay returns the status of the answer.
func (p *process) replay(ctx context.Context, key string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.operators+"/dead/"+key+"/replay", nil)
	if err != nil {
		return 0, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// drained returns the backlog once nothing is queued and nothing will be retried.
func (p *process) drained(ctx context.Context) (b endpoint.Backlog, err error) {
	for {
		if _, err = p.get(ctx, "/backlog", &b); err != nil {
			return b, err
		}
		if b.Queued == 0 && b.Retrying == 0 {
			return b, nil
		}
		tick(ctx)
		if ctx.Err() != nil {
			return b, fmt.Errorf("%d deliveries are still queued and %d events to be retried: %w", b.Queued, b.Retrying, context.Cause(ctx))
		}
	}
}
