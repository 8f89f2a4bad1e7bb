/*
 * Redis: a record on each server, and the scripts. One inline is one file in lua/, and runs at
 * once, as scripts do. put and erase are the only writers.
 */

#define SERVERS (REPLICAS + 1)
Record rec[SERVERS];
#if REPLICAS == 0
#define server(i) 0
#else
#define server(i) conn[i] /* the one that caller i takes for the master */
byte conn[CALLERS];
#endif

/* The answer of the last script, for the step that sent it. */
hidden Record answer;
hidden byte yes;

/* superseder is who last took the operation: a ghost. */
#if REPLICAS == 0
byte superseder;
#define supersede(t) superseder = t
#else
#define supersede(t) skip
#endif

inline put(s, what, whose, number, ticks, policy) {
  must(G2, rec[s].kind < OUTCOME); /* no outcome is overwritten */
  rec[s].kind = what; rec[s].token = whose; rec[s].attempt = number;
  rec[s].left = ticks; rec[s].refuse = policy
}

inline erase(s, by) {
  must(G6, rec[s].token == by);
  rec[s].kind = ABSENT; rec[s].token = 0; rec[s].attempt = 0; rec[s].left = 0; rec[s].refuse = 0
}

#ifdef NOTICES
/* A message may not arrive; a later one takes the place of one not taken yet. */
inline publish(s, what, whose) {
  for (k : 0 .. CALLERS - 1) {
    if
    :: listening[k] == STANDS && server(k) == s -> message[k] = what; messageToken[k] = whose
#ifndef RELIABLE
    :: listening[k] == STANDS -> skip /* lost */
#endif
    :: listening[k] != STANDS -> skip
    fi
  }
  k = 0
}
#else
inline publish(s, what, whose) { skip }
#endif

inline reply(s) {
  answer.kind = rec[s].kind; answer.token = rec[s].token; answer.attempt = rec[s].attempt;
  answer.left = rec[s].left; answer.refuse = rec[s].refuse
}

/* SET NX GET, or claim.lua. Answers what is there, ABSENT when the claim was made. */
inline claimScript(s, whose, policy) {
  reply(s);
  if
  :: rec[s].kind == ABSENT -> put(s, RUNNING, whose, 1, LEASE, policy); supersede(whose)
#ifdef BREAK_CLAIM_OVER_OUTCOME /* an outcome that cannot be read is run again */
  :: rec[s].kind == OUTCOME -> answer.kind = ABSENT
#endif
  :: else
  fi
}

inline renewScript(s, whose) {
  yes = rec[s].kind == RUNNING && rec[s].token == whose;
  if
  :: yes -> rec[s].left = LEASE
  :: else
  fi
}

inline commitScript(s, whose) {
  if
#ifndef BREAK_COMMIT_UNKNOWN
  :: rec[s].kind == OUTCOME && rec[s].token == whose -> yes = true /* an earlier delivery */
#endif
#ifdef BREAK_LATE_COMMIT
  :: rec[s].kind == RUNNING && rec[s].token == whose && rec[s].left > 0
#elif defined(BREAK_COMMIT_OVERWRITES)
  :: !(rec[s].kind == OUTCOME && rec[s].token == whose)
#else
  :: rec[s].kind == ABSENT || rec[s].kind == RUNNING && rec[s].token == whose
#endif
    -> must(G2, rec[s].kind == ABSENT || rec[s].token == whose);
       supersede(whose);
       put(s, OUTCOME, whose, rec[s].attempt, 0, 0);
       yes = true;
#if REPLICAS == 0
       outcome = whose;
#endif
       publish(s, RECORD, whose)
  :: else -> yes = false
  fi
}

/* SET IFEQ: the plain success of commitScript, without its message. Everything else says nothing. */
inline compareAndSet(s, whose) {
  yes = rec[s].kind == RUNNING && rec[s].token == whose;
  if
  :: yes -> supersede(whose); put(s, OUTCOME, whose, rec[s].attempt, 0, 0); outcome = whose
  :: else
  fi
}

#ifdef BREAK_NUMBER_DROPPED
#define keeps(stays) false
#else
#define keeps(stays) stays
#endif

/* stays: the record stays for its attempt number, without an owner. */
inline releaseScript(s, whose, number, policy, stays) {
  if
#ifdef BREAK_RELEASE_ANYBODYS
  :: rec[s].kind == RUNNING
#else
  :: rec[s].kind == RUNNING && rec[s].token == whose
#endif
    -> if
       :: keeps(stays) -> newToken(n); put(s, RUNNING, n, number, 0, policy); n = 0; publish(s, READ, 0)
       :: else -> erase(s, whose); publish(s, FREE, 0)
       fi
  :: else
  fi
}

/* Answers ABSENT and yes when the record of t is stored, else what is there. verdict: REFUSED
   takes the place of what was seen, not a new owner. */
inline takeOverScript(s, seen, whose, number, policy, verdict) {
  reply(s);
  yes = false;
  if
  :: rec[s].kind != ABSENT && rec[s].token == whose -> yes = true
#ifdef BREAK_TAKEOVER_LIVE
  :: rec[s].kind == RUNNING && rec[s].token == seen
#else
  :: rec[s].kind == RUNNING && rec[s].token == seen && rec[s].left == 0
#endif
    -> if
       :: verdict -> put(s, REFUSED, whose, number, 0, 0); publish(s, RECORD, whose)
       :: else -> put(s, RUNNING, whose, number, LEASE, policy)
       fi;
       supersede(whose);
       yes = true
  :: else
  fi
}
