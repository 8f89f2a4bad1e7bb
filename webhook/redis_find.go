package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A found is the entry of an event in an index. Entries are ordered by score, then key, the last one first.
type found struct {
	place
	score int64 // received, us
}

func (f found) compare(other found) int {
	return cmp.Or(cmp.Compare(other.score, f.score), strings.Compare(other.key, f.key))
}

// An index is a zset by the time at which the events were received.
type index struct {
	name string
	place
}

// indexes returns the zsets that hold all events that f can match: the object's or, in each lane, the states'.
func (s *RedisStore) indexes(f *Filter) (all []index) {
	if f.Object != "" {
		p := s.place(Ref{Source: f.Source, Object: f.Object})
		return []index{{p.objects(), p}}
	}
	states := f.States
	if len(states) == 0 {
		states = States()
	}
	for lane, prefix := range s.prefixes {
		for _, state := range states {
			p := place{lane: lane, prefix: prefix}
			all = append(all, index{p.state(state), p})
		}
	}
	return all
}

// Find implements Archive. Each page merges the indexes, in one pipeline, and reads as many events as it may return.
// States that were changed between two pages can show an event twice or not at all.
func (s *RedisStore) Find(ctx context.Context, f Filter, cursor string, limit int) (page []Record, next string, err error) {
	if f.Object != "" && f.Source == "" {
		return nil, "", errors.New("webhook: Find: the filter has an object and no source; allowed: both")
	}
	if limit < 1 {
		return nil, "", fmt.Errorf("webhook: Find: limit is %d; allowed: 1 or more", limit)
	}
	after, err := parseCursor(cursor, &f)
	if err != nil {
		return nil, "", err
	}
	indexes := s.indexes(&f)
	// A filter that matches few events is looked for in this many of them, so that a page takes a bounded time.
	const most = 5000
	for looked := 0; looked < most && len(page) < limit; {
		want := max(limit-len(page), 100)
		entries, err := s.entries(ctx, indexes, &f, after, want)
		if err != nil || len(entries) == 0 {
			return page, "", err
		}
		places := make([]place, len(entries))
		for i, e := range entries {
			places[i] = e.place
		}
		records, err := s.load(ctx, places, false)
		if err != nil {
			return nil, "", err
		}
		for i, r := range records {
			looked++
			after = entries[i]
			if r != nil && f.Matches(r) {
				if page = append(page, *r); len(page) == limit {
					break
				}
			}
		}
	}
	waiting := make([]*Record, len(page))
	for i := range page {
		waiting[i] = &page[i]
	}
	return page, formatCursor(after), s.locate(ctx, waiting)
}

// entries returns the next want entries after one, of all indexes together.
func (s *RedisStore) entries(ctx context.Context, indexes []index, f *Filter, after found, want int) ([]found, error) {
	low := "-inf"
	if !f.From.IsZero() {
		low = micros(f.From)
	}
	before := make([]*redis.ZSliceCmd, len(indexes))
	same := make([]*redis.StringSliceCmd, len(indexes)) // received at the same time as the last one
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		at := strconv.FormatInt(after.score, 10)
		for i, ix := range indexes {
			before[i] = pipe.ZRevRangeByScoreWithScores(ctx, ix.name, &redis.ZRangeBy{Min: low, Max: "(" + at, Count: int64(want)})
			if after.key != "" {
				same[i] = pipe.ZRangeByScore(ctx, ix.name, &redis.ZRangeBy{Min: at, Max: at})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var entries []found
	add := func(ix index, key string, score int64) {
		p := ix.place
		p.key = key
		entries = append(entries, found{p, score})
	}
	for i, ix := range indexes {
		if same[i] != nil {
			for _, key := range same[i].Val() {
				if key < after.key {
					add(ix, key, after.score)
				}
			}
		}
		for _, z := range before[i].Val() {
			key, _ := z.Member.(string)
			add(ix, key, int64(z.Score))
		}
	}
	slices.SortFunc(entries, found.compare)
	entries = slices.CompactFunc(entries, func(a, b found) bool { return a.key == b.key }) // it changed its state meanwhile
	return entries[:min(want, len(entries))], nil
}

// parseCursor returns the entry that the next page follows.
func parseCursor(cursor string, f *Filter) (found, error) {
	if cursor == "" {
		last := int64(1) << 52 // the year 2112
		if !f.To.IsZero() {
			last = min(last, f.To.UnixMicro())
		}
		return found{score: last}, nil
	}
	score, key, ok := strings.Cut(cursor, ".")
	n, err := strconv.ParseInt(score, 10, 64)
	if !ok || err != nil || key == "" || n > math.MaxInt64/2 {
		return found{}, fmt.Errorf("webhook: Find: the cursor %.40q is not one that Find returned", cursor)
	}
	return found{score: n, place: place{key: key}}, nil
}

func formatCursor(f found) string { return strconv.FormatInt(f.score, 10) + "." + f.key }
