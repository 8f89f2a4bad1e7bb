/*
 * Parking and expiry in package webhook. Events 1 to EVENTS lead one object from state 0 to state EVENTS, one
 * step each. They arrive in any order, or never. WORKERS take due events, decide by the object's position, run the
 * handler, and settle. A lease may run out at any time, up to LOSSES times: the event is due again, and its worker
 * goes on without it, however late. The time of a parked event may run out at any time after it was parked.
 *
 *   ORDER    the handler of an event has its effect only when the event is next
 *   ONCE     and at most once
 *   WAKE     no event stays parked once it is next
 *   MISSING  an event becomes a dead letter only while one before it is missing
 *   END      every event that arrived is settled in the end: none is left parked
 *
 * That an execution has its effect once is the subject of model.pml, so Executor.Execute is one step here. REDRIVES
 * dead letters are queued again. With REFETCH, an event whose time ran out is applied instead of a dead letter. The
 * BREAK_ macros break a rule each.
 */
#ifndef EVENTS
#define EVENTS 3
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef REDRIVES
#define REDRIVES 0
#endif
#define N (EVENTS + 1)

/* An assertion is written cond || ORDER, so that its text tells which guarantee it is. These are false; with ASK, all
   but the one that is asked for are true. */
#ifndef ASK
#define ASK 0
#endif
#define notAsked(n) (ASK != 0 && ASK != n)
bool ORDER = notAsked(1), ONCE = notAsked(2), WAKE = notAsked(3), MISSING = notAsked(4), END = notAsked(5);

#define AWAY    0 /* it has not arrived */
#define QUEUED  1
#define RUNNING 2
#define PARKED  3
#define DONE    4
#define STALE   5
#define DEAD    6
byte state[N] = AWAY;
byte token[N];          /* of the ticket that may settle it, 0 if none */
bool woken[N];          /* since it was parked */
bool timed[N];          /* it was parked once: its time runs */
bool expired[N];        /* its time ran out */
bool recorded[N];       /* the executor knows the outcome */
byte effects[N];
byte position;          /* of the object */
byte busy;              /* the event that has the object, 0 if none */
byte tokens;
byte losses = LOSSES;
byte redrives = REDRIVES;

#define next(e) (position >= (e) - 1)
#define isDue(e) (state[e] == QUEUED || state[e] == PARKED && (woken[e] || expired[e]))
#ifdef BREAK_NO_EXPIRY
#undef isDue
#define isDue(e) (state[e] == QUEUED || state[e] == PARKED && woken[e])
#endif
#ifdef BREAK_NO_OBJECT
#define isFree true
#else
#define isFree (busy == 0)
#endif

/* take.lua */
inline take(x) {
	state[x] = RUNNING; woken[x] = false; busy = x;
	tokens++; token[x] = tokens; mine = tokens
}

/* A lease that ran out, in take.lua. */
inline lose(x) {
	losses--; token[x] = 0; state[x] = QUEUED; busy = (busy == x -> 0 : busy)
}

#ifdef BREAK_NO_TOKEN
#define holds(x) true
#else
#define holds(x) (token[x] == mine)
#endif

#ifdef BREAK_WAKES_ONE /* only the last one */
#define wakes(i) (state[i] == PARKED && (i == EVENTS || state[EVENTS] != PARKED))
#else
#define wakes(i) (state[i] == PARKED)
#endif

inline wake() {
	for (i : 1 .. EVENTS) {
		if
		:: wakes(i) -> woken[i] = true
		:: else
		fi
	}
	i = 0
}

/* settle.lua, and what must hold after it. */
inline settle(x, to, moves) {
	d_step {
		if
		:: holds(x) ->
			assert(to != DEAD || !next(x) || MISSING);
			token[x] = 0; busy = (busy == x -> 0 : busy); state[x] = to;
			if
			:: moves ->
				position = x;
#ifndef BREAK_WAKE_APART
				wake()
#endif
			:: else
			fi;
			if
			:: to == PARKED -> timed[x] = true
			:: else
			fi;
#ifndef BREAK_WAKE_APART
			for (i : 1 .. EVENTS) {
				assert(state[i] != PARKED || woken[i] || expired[i] || !next(i) || WAKE)
			}
			i = 0
#endif
		:: else
		fi
	};
#ifdef BREAK_WAKE_APART
	if
	:: moves && losses > 0 -> losses-- /* the process dies in between */
	:: moves -> d_step { wake() }
	:: else
	fi;
	d_step {
		for (i : 1 .. EVENTS) {
			assert(busy != 0 || state[i] != PARKED || woken[i] || expired[i] || !next(i) || WAKE)
		}
		i = 0
	}
#endif
}

/* Executor.Execute */
inline execute(x) {
	d_step {
		if
#ifndef BREAK_NO_EXECUTOR
		:: recorded[x]
#endif
		:: else ->
			assert(position == x - 1 || refetching || ORDER);
			effects[x]++;
			assert(effects[x] <= 1 || ONCE);
			recorded[x] = true
		fi
	}
}

active [WORKERS] proctype Worker() {
	byte e, known, mine, i;
	bool over, refetching;
end:
	do
	:: atomic {
		if
		:: isFree && isDue(1) -> e = 1
#if EVENTS > 1
		:: isFree && isDue(2) -> e = 2
#endif
#if EVENTS > 2
		:: isFree && isDue(3) -> e = 3
#endif
		fi;
#ifdef BREAK_POSITION_FIRST /* read before the object is taken */
		known = position
	   };
	   atomic {
		if
		:: isFree && isDue(e) -> skip
		:: else -> goto again
		fi;
#endif
		take(e)
	   };
	   d_step { /* begin.lua; then decide */
#ifndef BREAK_POSITION_FIRST
		known = position;
#endif
		over = expired[e]
	   };
	   if
	   :: known >= e -> settle(e, STALE, false)
	   :: known == e - 1 ->
#ifdef BREAK_EXPIRY_BLIND
		if
		:: over -> settle(e, DEAD, false); goto again
		:: else
		fi;
#endif
		execute(e); settle(e, DONE, true)
	   :: known < e - 1 && !over ->
#ifdef BREAK_NO_PARKING
		execute(e); settle(e, DONE, true)
#else
		settle(e, PARKED, false)
#endif
	   :: known < e - 1 && over ->
#ifdef REFETCH
		refetching = true; execute(e); refetching = false; settle(e, DONE, true)
#else
		settle(e, DEAD, false)
#endif
	   fi;
again:
	   skip;
	   d_step { e = 0; known = 0; mine = 0; over = false }
	od
}

/* Each event arrives at some time, or never. */
active [EVENTS] proctype Provider() {
	if
	:: state[_pid - WORKERS + 1] = QUEUED
	:: skip
	fi
}

/* Time, leases and operators. */
active proctype World() {
	byte e;
end:
	do
	:: atomic { timed[1] && !expired[1] -> expired[1] = true }
#if EVENTS > 1
	:: atomic { timed[2] && !expired[2] -> expired[2] = true }
#endif
#if EVENTS > 2
	:: atomic { timed[3] && !expired[3] -> expired[3] = true }
#endif
	:: atomic { losses > 0 && busy != 0 && token[busy] != 0 -> e = busy; lose(e); e = 0 }
	:: atomic {
		redrives > 0 ->
		select(e : 1 .. EVENTS);
		if
		:: state[e] == DEAD -> redrives--; state[e] = QUEUED; timed[e] = false; expired[e] = false
		:: else
		fi;
		e = 0
	   }
	od
}

/* Nothing can happen any more. */
active proctype Judge() {
	byte e;
	timeout;
	for (e : 1 .. EVENTS) {
		assert(state[e] == AWAY || state[e] >= DONE || END)
	}
}
