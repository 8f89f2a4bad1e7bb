/*
 * A caller: Run, from the claim to the last word. To send a command is one step and what comes of
 * it another, so that anything may happen in between.
 */

/* What becomes of a command that was sent. */
#define ANSWERED 0
#define UNKNOWN  1 /* an error, which does not say whether it was or will be executed */

/* store.*, as seen from outside: answered; answered when the client sent it again, the first
   delivery being executed before, after or never; or given up. */
inline send(what, old, number, policy, mark) {
  pending[me] = (what <= RENEW || what == TAKEOVER && !mark -> LEASE : 0);
  if
  :: fate = ANSWERED
  :: faults > 0 -> faults--; linger(what, token, old, number, policy, mark); spread = true; fate = ANSWERED
  :: faults > 0 -> faults--; linger(what, token, old, number, policy, mark); spread = true; fate = UNKNOWN
  fi
}

/* core.disown: what may be ours is freed in the background, and its token is not used again. */
inline disown(number) {
  linger(RELEASE, token, 0, number, refuse, number > 1);
#ifndef BREAK_TOKEN_AFTER_UNKNOWN
  newToken(token);
#endif
  spread = false
}

#ifdef NOTICES
/* wait.judge: when to look again. Without a subscription, a waiter polls. */
inline sleep(ticks) {
  recheck[me] = (listening[me] == STANDS || ticks == 0 -> ticks : 1);
  pending[me] = 0
}
#define waitFor(t) owner = t
inline watch() { listening[me] = ASKED; sleep(1) }
inline hear() { message[me] = NOTHING; messageToken[me] = 0 }
inline unwatch() { recheck[me] = 0; listening[me] = NOT; hear() }
#else
inline sleep(ticks) { pending[me] = 0 }
#define waitFor(t) skip
inline watch() { skip }
inline unwatch() { skip }
#endif

inline finish(what) { pending[me] = 0; noWait(me); unwatch(); result[me] = what }

/* What an owner believes is left of its lease: it counts from when the command was sent. */
#ifdef BREAK_LEASE_FROM_ANSWER
#define beliefOf(sent) LEASE
#else
#define beliefOf(sent) sent
#endif

inline replayed(t) {
#if REPLICAS == 0
  must(G4, t == outcome || expired);
#else
  must(READS, given == 0 || given == t);
  given = t;
#endif
  finish(REPLAYED)
}

/* Somebody else has it; what is left of the lease is not known yet, so it looks soon. */
inline busy() {
  must(G6, answer.token != token);
  waitFor(answer.token);
  sleep(0)
}

/* A variable that is not needed any more tells no states apart. */
inline forget() { seen = 0; seenAttempt = 0; number = 0; seenRefuse = false; verdict = false }

/* Each claim and take-over has a token of its own, or an earlier delivery of another one, which the
   client repeated, could be taken for this one. A token that went no further than to the server and
   back is as good as a new one. */
inline ownToken() {
#ifdef BREAK_TOKEN_USED_TWICE
  skip
#else
  if
  :: spread -> newToken(token); spread = false
  :: !spread
  fi
#endif
}

inline noTwoOwners() {
  for (k : 0 .. CALLERS - 1) {
    must(G1, k == me || lease[me] == 0 || !executing[k] || lease[k] == 0)
  }
  k = 0
}

/* What holds when fn begins under a lease. A caller that was paused between the claim and the
   first line of fn, until its lease was over, begins as well; STRICT shows that. */
#ifdef STRICT
#define underLease true
#else
#define underLease (lease[me] > 0)
#endif
inline begin() {
  noTwoOwners();
  must(G3, !underLease || outcome == 0);
#if REPLICAS > 0
  must(READS, !underLease || given == 0);
#endif
#if ASK == 0
  for (k : 0 .. CALLERS - 1) {
    must(ATTEMPT, !underLease || attempt > 1 || !doubt[k]);
    must(REFUSE, !underLease || !refusing[k])
  }
  k = 0;
  doubt[me] = lease[me] > 0 || !expired;
  refusing[me] = refuse && doubt[me];
#endif
  executing[me] = true
}

#ifdef DEATHS /* which come at any time, also before a caller begins */
#define living {
#define dying  } unless { dead[me] }
#define inTurn true
#else
#define living
#define dying
#define inTurn begun == me /* nothing tells callers apart yet */
#endif

active [CALLERS] proctype Caller() {
  byte token, attempt;
  byte owner;             /* whose execution it waits for */
  byte seen, seenAttempt; /* what it is to take over */
  byte number;            /* and its number then */
  bool seenRefuse;
  bool refuse, spread, waits, verdict, stays, fate;
  byte renewals, left, k, n;

  living
  atomic {
    inTurn -> begun++;
    token = me + 1;
    if
    :: true
#ifdef REFUSALS
    :: refuse = true
#endif
    fi;
    send(CLAIM, 0, 1, refuse, false);
    goto claimed
  }

claim: /* core.claim */
  atomic {
    ownToken();
    send(CLAIM, 0, 1, refuse, false)
  }
claimed:
  atomic {
    if
    :: fate == UNKNOWN -> fate = ANSWERED; disown(1); goto unavailable
    :: fate == ANSWERED ->
       claimScript(server(me), token, refuse);
       nextWrite(me, (answer.kind == ABSENT || answer.token == token -> ACKS : ACK_READS));
       if
       :: answer.kind == ABSENT -> attempt = 1; goto own
#ifdef BREAK_CLAIM_TOKEN
       :: answer.kind == RUNNING -> busy(); goto watching
#else
       :: answer.kind == RUNNING && answer.token == token -> attempt = answer.attempt; goto own
       :: answer.kind == RUNNING && answer.token != token -> busy(); goto watching
#endif
       :: answer.kind == OUTCOME -> owner = answer.token; goto replay
       :: answer.kind == REFUSED -> finish(INTERRUPTED); goto done
       fi
    fi
  }

unavailable: /* an error ends a Run, but not a wait */
  atomic {
    if
    :: !waits -> finish(UNAVAILABLE); goto done
    :: waits -> noWait(me); sleep(0); goto wait
    fi
  }

watching: /* wait.begin: hub.watch, and unconfirmedPoll */
  atomic {
    if
    :: !waits -> waits = true; watch()
    :: waits
    fi
  }

wait: /* wait.run, wait.hear */
#ifndef NOTICES /* it may be told, truly or not, at any time */
  if
  :: goto look
  :: goto claim
  fi;
#else
  atomic {
    if
#ifndef BREAK_NO_RECHECK
    :: message[me] == NOTHING && recheck[me] == 0 -> goto look
#endif
    :: message[me] == FREE -> hear(); goto claim
#if ACK_READS
    :: message[me] == RECORD -> hear(); goto look
#else
    :: message[me] == RECORD && messageToken[me] == owner -> replayed(owner); goto done
    :: message[me] == RECORD && messageToken[me] != owner -> hear(); goto look
#endif
    :: message[me] == WAKE || message[me] == READ -> hear(); goto look
    fi
  }
#endif

look: /* core.look */
  atomic {
    reply(server(me));
    nextWrite(me, ACK_READS);
    if
    :: answer.kind == ABSENT -> goto claim
    :: answer.kind == OUTCOME -> owner = answer.token; goto replay
    :: answer.kind == REFUSED -> finish(INTERRUPTED); goto done
    :: answer.kind == RUNNING && answer.left > 0 ->
       waitFor(answer.token); left = answer.left; sleep(left); left = 0; goto wait
    :: answer.kind == RUNNING && answer.left == 0 ->
       seen = answer.token; seenAttempt = answer.attempt; seenRefuse = answer.refuse
    fi;
    /* core.takeOver */
#ifdef BREAK_REFUSE
    verdict = refuse;
#else
    verdict = refuse || seenRefuse;
#endif
    ownToken();
    number = seenAttempt + 1;
    send(TAKEOVER, seen, number, refuse, verdict)
  }
  atomic {
    if
    :: fate == UNKNOWN && !verdict -> fate = ANSWERED; disown(number); forget(); goto unavailable
    :: fate == UNKNOWN && verdict -> fate = ANSWERED; forget(); goto unavailable
    :: fate == ANSWERED ->
       takeOverScript(server(me), seen, token, number, refuse, verdict);
       nextWrite(me, (yes -> ACKS : ACK_READS));
       if
       :: yes && verdict -> finish(INTERRUPTED); goto done
       :: yes && !verdict -> attempt = number; forget(); goto own
       :: !yes && answer.kind == ABSENT -> forget(); goto claim
       :: !yes && answer.kind == RUNNING -> forget(); busy(); goto wait
       :: !yes && answer.kind == OUTCOME -> forget(); owner = answer.token; goto replay
       :: !yes && answer.kind == REFUSED -> finish(INTERRUPTED); goto done
       fi
    fi
  }

replay: /* core.replay */
  atomic {
    if
    :: enough(me, ACK_READS) -> replayed(owner); goto done
#if ACK_READS
    :: goto unavailable
#endif
    fi
  }

own: /* core.own */
  atomic {
    if
    :: enough(me, ACKS) && pending[me] > LEASE / 3 -> goto execute
    :: enough(me, ACKS) && pending[me] <= LEASE / 3 && faults > 0 -> faults-- /* the answer took long */
#if ACKS
    :: tooFew > 0 -> tooFew--; disown(attempt); goto unavailable
#endif
    :: disown(attempt); finish(LEFT); goto done /* wait.ask, core.lead: the caller has gone meanwhile */
    fi;
    pending[me] = LEASE
  }
  atomic {
    if
    :: renewScript(server(me), token); nextWrite(me, ACKS_RENEW)
    :: yes = false /* no answer */
    fi;
    if
    :: !yes -> disown(attempt); goto unavailable
    :: yes -> skip
    fi
  }
  atomic {
    if
    :: enough(me, ACKS_RENEW) && pending[me] > 0 -> skip
    :: disown(attempt); goto unavailable /* too slow, or too few */
    fi
  }

execute: /* core.execute, performance.perform */
  atomic {
    owner = 0;
    lease[me] = beliefOf(pending[me]);
    pending[me] = 0;
    noWait(me);
    begin()
  }

running: /* fn runs, and renewer.renew renews its lease */
  atomic {
    if
    :: lease[me] > 0 && lease[me] < LEASE && renewals < RENEWALS -> renewals++
    :: goto returned
    fi;
    send(RENEW, 0, 0, false, false)
  }
  atomic {
    if
    :: fate == UNKNOWN -> fate = ANSWERED; pending[me] = 0; goto running
    :: fate == ANSWERED ->
       renewScript(server(me), token);
       nextWrite(me, ACKS_RENEW);
       if
       :: yes -> skip
       :: !yes -> lease[me] = 0; pending[me] = 0; noWait(me); goto running /* lost */
       fi
    fi
  }
  atomic { /* renewer.finish */
    if
    :: enough(me, ACKS_RENEW) -> lease[me] = beliefOf(pending[me]); noTwoOwners()
    :: lease[me] == 0 -> skip /* the timer was faster: lost */
#if ACKS_RENEW
    :: skip
#endif
    fi;
    pending[me] = 0;
    noWait(me);
    goto running
  }

returned: /* performance.conclude */
  atomic {
    executing[me] = false;
    if
#ifdef COMPARISON
    :: goto compare
#endif
    :: goto commit                                      /* a value, an error or a panic */
#if REPLICAS == 0 /* else of no interest: nothing is lost with them */
    :: stays = true                                     /* abandon: nobody knows what it did */
    :: stays = attempt > 1; doubt[me] = false; refusing[me] = false /* release: an ignored error */
#endif
    fi;
    lease[me] = 0;
    send(RELEASE, 0, attempt, refuse, stays)
  }
  atomic {
    if
    :: fate == UNKNOWN -> fate = ANSWERED; skip
    :: fate == ANSWERED -> releaseScript(server(me), token, attempt, refuse, stays)
    fi;
    finish(LEFT);
    goto done
  }

#ifdef COMPARISON
compare: /* Store.Commit: the script answers everything but the plain success */
  atomic { send(COMPARE, 0, 0, false, false) }
  atomic {
#ifdef BREAK_PUBLISH_FIRST
    linger(PUBLISH, token, 0, 0, false, false);
#endif
    if
    :: fate == UNKNOWN -> fate = ANSWERED; goto commit
    :: fate == ANSWERED ->
       compareAndSet(server(me), token);
       if
       :: yes -> linger(PUBLISH, token, 0, 0, false, false); lease[me] = 0; finish(RECORDED); goto done
       :: !yes -> goto commit
       fi
    fi
  }
#endif

commit: /* performance.commit; its patience may end after any failure */
  atomic { send(COMMIT, 0, 0, false, false) }
  atomic {
    if
    :: fate == UNKNOWN -> fate = ANSWERED; goto commit
    :: fate == UNKNOWN -> fate = ANSWERED; lease[me] = 0; finish(NOTRECORDED); goto done
    :: fate == ANSWERED ->
       commitScript(server(me), token);
       nextWrite(me, ACKS);
       must(G6, yes || rec[server(me)].kind != OUTCOME || rec[server(me)].token != token);
#if REPLICAS == 0
       must(G2, yes || superseder != token);
#endif
       if
       :: yes -> skip
       :: !yes -> lease[me] = 0; finish(LEASELOST); goto done
       fi
    fi
  }
  atomic {
    if
    :: enough(me, ACKS) -> recorded(token); lease[me] = 0; finish(RECORDED)
#if ACKS
    :: goto commit
    :: lease[me] = 0; finish(NOTRECORDED)
#endif
    fi
  }

done:
  skip;
  d_step {
    forget(); token = 0; attempt = 0; owner = 0; renewals = 0;
    refuse = false; spread = false; waits = false; stays = false; fate = ANSWERED
  }
  dying
}
