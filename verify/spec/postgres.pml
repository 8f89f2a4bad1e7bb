/*
 * The lost answer to COMMIT in package pg. Each caller runs one operation: it takes the lock, reads the
 * record, has its effect, inserts the record and commits. A connection may be lost before COMMIT or after
 * it was sent: its session then commits or rolls back when it likes, and holds the lock until it has. The
 * caller dies, or begins again on another session: under the lock, it reads what became of the first one.
 *
 *   ONCE      at most one effect is committed
 *   TOGETHER  effect and record are committed together
 *   OWN       a caller that takes a commit for its own finds its record, and every caller gets the recorded outcome
 *
 * CALLERS run the operation; LOSSES connections are lost. The BREAK_ macros break a rule each.
 */
#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef LOSSES
#define LOSSES 3
#endif
#define FREE 255

/* An assertion is written cond || ONCE, so that its text tells which guarantee it is. These are false. */
bool ONCE, TOGETHER, OWN;

byte lock = FREE;       /* the session that holds it */
byte record = 0;        /* the token of the execution whose record is committed; 0 is none */
byte effects = 0;       /* committed */
byte tokens = 0;
byte sessions = 0;
byte losses = LOSSES;
byte ended = 0;

inline unlock(session) { lock = (lock == session -> FREE : lock) }

inline commit(session, token) {
	d_step {
		effects++;
		record = token;
		unlock(session);
		assert(effects <= 1 || ONCE)
	}
}

/* A session whose client is gone. */
proctype orphan(byte session; byte token; bool committing) {
	if
	:: committing -> commit(session, token)
	:: d_step { unlock(session) }
	fi
}

proctype caller() {
	byte session, token = 0;
	bool lost = false;      /* an answer to COMMIT */

begin:
	skip;
	d_step { session = sessions; sessions++ };
#ifdef BREAK_NO_LOCK
	if
	:: lost && record == 0 -> goto execute
	:: lost && record != 0 -> goto read
	:: else
	fi;
#endif
	atomic { lock == FREE -> lock = session };
read:
	if
	:: record != 0 -> goto found
	:: else
	fi;
execute:
	skip;
	d_step { tokens++; token = tokens };
	if
	:: losses > 0 -> losses--; run orphan(session, token, false); lost = false; goto again
	:: losses > 0 -> losses--; run orphan(session, token, true); lost = true; goto again
#ifdef BREAK_APART
	:: effects++; if :: losses > 0 -> losses--; unlock(session); goto dead :: skip fi; record = token; unlock(session)
#else
	:: commit(session, token)
#endif
	fi;
	assert(record == token || OWN);
	goto over;
again:
	if
#ifdef BREAK_RERUN_BLIND
	:: lost -> d_step { session = sessions; sessions++ }; goto execute
#endif
	:: goto begin
	:: goto dead
	fi;
found:
	skip;
#ifdef BREAK_OWN_ALWAYS
	assert(!lost || record == token || OWN);
#endif
	d_step { unlock(session) }
	goto over;
dead:	/* its session goes on without it */
over:
	ended++
}

init {
	byte i;
	atomic { for (i : 1 .. CALLERS) { run caller() } }
	_nr_pr == 1 -> assert((effects > 0) == (record != 0) || TOGETHER);
	assert(ended == CALLERS)
}
