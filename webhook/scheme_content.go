package webhook

import (
	"encoding/json"
	"time"
)

// maxIDSize bounds an event's id in bytes, because it becomes a part of keys and log lines.
const maxIDSize = 255

// decodeBody decodes the JSON of an authentic request. The decoder's error is dropped: it may quote the body.
func decodeBody(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return Refuse(ReasonBadBody, "the body is not the JSON that the provider documents")
	}
	return nil
}

// singleEvent returns the content of a request with one event, or refuses an event without a usable id.
func singleEvent(e Event) (Content, error) {
	if err := checkID(e.ID); err != nil {
		return Content{}, err
	}
	return Content{Events: []Event{e}}, nil
}

func checkID(id string) error {
	switch {
	case id == "":
		return Refuse(ReasonNoEventID, "the event has no id")
	case len(id) > maxIDSize:
		return Refuse(ReasonNoEventID, "the event's id has more than 255 bytes")
	}
	return nil
}

// parseTime parses RFC 3339. A time that cannot be parsed is no reason to lose an authentic event: it stays zero.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// textOrNumber decodes a JSON string or number into its text; null and anything else become "".
type textOrNumber string

func (t *textOrNumber) UnmarshalJSON(b []byte) error {
	var s string
	var n json.Number
	switch {
	case json.Unmarshal(b, &s) == nil:
		*t = textOrNumber(s)
	case json.Unmarshal(b, &n) == nil:
		*t = textOrNumber(n)
	default:
		*t = ""
	}
	return nil
}
