package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// eventFields are the fields of a new event's hash, but for those that accept.lua writes.
func eventFields(a *Arrival) []any {
	fields := []any{
		"state", string(Queued), "source", a.Source, "id", a.Event.ID, "type", a.Event.Type, "object", a.Event.Object,
		"steps", 1, "s1", encode(a.Step),
	}
	optional := func(name, value string, set bool) {
		if set {
			fields = append(fields, name, value)
		}
	}
	optional("version", strconv.FormatInt(a.Event.Version, 10), a.Event.Version != 0)
	optional("occurred", micros(a.Event.OccurredAt), !a.Event.OccurredAt.IsZero())
	optional("unsigned", "1", a.Event.Unsigned)
	optional("trace", a.TraceParent, a.TraceParent != "")
	return fields
}

func payloadFields(p *Payload) ([]any, error) {
	fields := []any{"body", p.Body}
	if p.Sealed {
		return append(fields, "sealed", 1), nil
	}
	header, err := encodeHeader(p.Header)
	if err != nil {
		return nil, err
	}
	fields = append(fields, "header", header)
	if p.Part != nil {
		fields = append(fields, "part", p.Part)
	}
	return fields, nil
}

// A headerLine is one field of a header. JSON strings would replace bytes that are no UTF-8, so values are bytes.
type headerLine struct {
	Name   string   `json:"n"`
	Values [][]byte `json:"v"`
}

func encodeHeader(h http.Header) ([]byte, error) {
	lines := make([]headerLine, 0, len(h))
	for name, values := range h {
		line := headerLine{Name: name}
		for _, v := range values {
			line.Values = append(line.Values, []byte(v))
		}
		lines = append(lines, line)
	}
	return json.Marshal(lines)
}

func decodeHeader(data []byte) (http.Header, error) {
	var lines []headerLine
	if err := json.Unmarshal(data, &lines); err != nil {
		return nil, fmt.Errorf("webhook: the stored header cannot be read: %w", err)
	}
	h := make(http.Header, len(lines))
	for _, line := range lines {
		values := make([]string, len(line.Values))
		for i, v := range line.Values {
			values[i] = string(v)
		}
		h[line.Name] = values
	}
	return h, nil
}

// readPayload reads the hash of a payload; nil if it is gone. A header that cannot be read is left out.
func readPayload(fields map[string]string) *Payload {
	body, ok := fields["body"]
	if !ok {
		return nil
	}
	p := &Payload{Body: []byte(body), Sealed: fields["sealed"] != ""}
	if p.Sealed {
		return p
	}
	p.Header, _ = decodeHeader([]byte(fields["header"]))
	if part, ok := fields["part"]; ok {
		p.Part = []byte(part)
	}
	return p
}

// readRecord reads the hash of an event.
func readRecord(key string, fields map[string]string) Record {
	number := func(name string) int {
		n, _ := strconv.Atoi(fields[name])
		return n
	}
	r := Record{
		Key: key, Source: fields["source"], ID: fields["id"], Type: fields["type"], Object: fields["object"],
		OccurredAt: moment(fields["occurred"]), Unsigned: fields["unsigned"] != "",
		ReceivedAt: moment(fields["received"]), Deliveries: number("deliveries"), TraceParent: fields["trace"],
		State: State(fields["state"]), Attempts: number("attempts"), AttemptsBefore: number("before"), Redrives: number("redrives"),
		Cause: Cause(fields["cause"]), Reason: fields["reason"], WaitsFor: fields["waits"],
		Due: moment(fields["due"]), ParkedUntil: moment(fields["parked"]), SettledAt: moment(fields["settled"]),
		Applied: fields["applied"] != "", Steps: number("steps"), Erased: fields["erased"] != "",
	}
	r.Version, _ = strconv.ParseInt(fields["version"], 10, 64)
	if changed := fields["changed"]; changed != "" {
		r.Changed = json.RawMessage(changed)
	}
	if r.State.Settled() || r.State == Running {
		r.Due = time.Time{}
	}
	for i := 1; i <= min(r.Deliveries, MaxReceipts); i++ {
		var receipt Receipt
		if json.Unmarshal([]byte(fields["r"+strconv.Itoa(i)]), &receipt) == nil {
			r.Receipts = append(r.Receipts, receipt)
		}
	}
	for i := max(1, r.Steps-MaxSteps+1); i <= r.Steps; i++ {
		var step Step
		if json.Unmarshal([]byte(fields["s"+strconv.Itoa(i)]), &step) == nil {
			r.Trail = append(r.Trail, step)
		}
	}
	return r
}

// replyMap makes a map of the reply to HGETALL inside of a script.
func replyMap(reply any) map[string]string {
	list, _ := reply.([]any)
	fields := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		value, _ := list[i+1].(string)
		fields[name] = value
	}
	return fields
}

// micros is a time as scores and fields hold it: a double holds microseconds exactly until the year 2255.
func micros(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMicro(), 10)
}

func moment(text string) time.Time {
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// encode is the JSON of a Receipt or a Step, which always have one.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // a time beyond the year 9999
		return []byte("{}")
	}
	return data
}

func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}
