package idemhttp

import (
	"mime"
	"strconv"
	"strings"
)

// negotiate returns the offer that an Accept field likes best, the earlier of equals. When it
// likes none, it is the first: RFC 9110 section 12.5.1 lets a server disregard the field.
func negotiate(accept []string, offers ...string) string {
	best, bestQ := offers[0], 0.0
	for _, offer := range offers {
		if q := quality(accept, offer); q > bestQ {
			best, bestQ = offer, q
		}
	}
	return best
}

// quality is the weight of the most specific range that covers offer, 0 if none does. Without a
// field, all are welcome.
func quality(accept []string, offer string) float64 {
	q, specific := 0.0, -1
	if len(accept) == 0 {
		return 1
	}
	kind, _, _ := strings.Cut(offer, "/")
	for _, line := range accept {
		for item := range strings.SplitSeq(line, ",") {
			name, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			rank := -1
			switch name {
			case offer:
				rank = 2
			case kind + "/*":
				rank = 1
			case "*/*":
				rank = 0
			}
			if rank > specific {
				specific, q = rank, weight(params)
			}
		}
	}
	return q
}

func weight(params map[string]string) float64 {
	text, ok := params["q"]
	if !ok {
		return 1
	}
	q, err := strconv.ParseFloat(text, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
