package flight

// A queue holds the followers of a call in the order in which they came. The group's mutex guards
// it, until the call is settled: from then on it does not change.
type queue[S any] struct {
	places []*Follower[S] // nil where one has left
	front  int            // nobody is before it
	len    int
}

func (q *queue[S]) add(f *Follower[S]) {
	f.place = len(q.places)
	q.places = append(q.places, f)
	q.len++
}

func (q *queue[S]) remove(f *Follower[S]) {
	q.places[f.place] = nil
	q.len--
	if q.len < len(q.places)/2 {
		q.compact()
	}
}

func (q *queue[S]) compact() {
	was := q.places
	q.places, q.front, q.len = was[:0], 0, 0
	for _, f := range was {
		if f != nil {
			q.add(f)
		}
	}
	clear(was[q.len:])
}

// first returns the follower that has waited longest, one that has looked if there is one, nil if
// there is none at all.
func (q *queue[S]) first() (first *Follower[S]) {
	for place := q.front; place < len(q.places); place++ {
		f := q.places[place]
		switch {
		case f != nil && f.looked.Load():
			return f
		case first == nil:
			first, q.front = f, place
		}
	}
	return first
}

func (q *queue[S]) each(do func(*Follower[S])) {
	for _, f := range q.places {
		if f != nil {
			do(f)
		}
	}
}

// runLength is how many followers of a settled call wake each other, one the next. A goroutine that
// is woken by one that is about to pause runs at once, next to it in memory; for thousands, that
// takes little more than half as long as waking all of them first and running them later.
const runLength = 16

// wakeRuns wakes the first of each run.
func (q *queue[S]) wakeRuns() {
	for run := 0; run < len(q.places); run += runLength {
		q.wakeFrom(run)
	}
}

// wakeNext wakes the one after f in its run.
func (q *queue[S]) wakeNext(f *Follower[S]) {
	if next := f.place + 1; next%runLength != 0 {
		q.wakeFrom(next)
	}
}

// wakeFrom wakes the first follower from a place to the end of its run, and passes over those that
// have not looked yet: they will, but may be busy.
func (q *queue[S]) wakeFrom(place int) {
	end := min(place-place%runLength+runLength, len(q.places))
	for ; place < end; place++ {
		if f := q.places[place]; f != nil {
			f.notify()
			if f.looked.Load() {
				return
			}
		}
	}
}
