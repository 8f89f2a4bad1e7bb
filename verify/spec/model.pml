/*
 * A model of the protocol: one operation, CALLERS processes that each Run it once, and a Redis.
 * README.md says what is modelled and what is not; docs/design.md which inline is which function.
 *
 * There are no seconds. A lease is LEASE ticks; the clock ticks whenever it likes, and a process
 * may rest between any two steps for any number of ticks. That is a slow network, a pause of the
 * process and, if it never goes on, its death. Nobody reads a clock of somebody else's.
 */

#ifdef LIVENESS /* guarantee 5 */
#define NOTICES
#ifndef NO_DEATHS
#define DEATHS
#endif
#endif

#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef FAULTS /* how many commands lose their reply, or arrive late */
#define FAULTS 1
#endif
#ifndef BREAKS /* how often a subscription breaks */
#define BREAKS 0
#endif
#ifndef REPLICAS
#define REPLICAS 0
#endif
#ifndef RENEWALS /* fn ends: how often its lease may be renewed */
#define RENEWALS 2
#endif
#ifndef ACKS /* replicas that must have a claim, a take-over and a commit before they count */
#define ACKS 0
#endif
#ifndef ACKS_RENEW /* the same for a renewal */
#define ACKS_RENEW ACKS
#endif
#ifndef ACK_READS /* the same for what is replayed */
#define ACK_READS 0
#endif
#ifndef LEASE
#define LEASE 3
#endif
#define me _pid /* of a caller: they come first */
#define SLOTS 2 /* commands that are under way at a time, with nobody who waits for the reply */

/* Kinds of record. A running record whose .left is 0 is one whose lease is over. */
#define ABSENT  0
#define RUNNING 1
#define OUTCOME 2 /* done: what fn came to. The outcome is known by its token. */
#define REFUSED 3 /* done: interrupted */

typedef Record {
  byte kind;
  byte token;
  byte attempt;
  byte left; /* of the lease: PTTL - retention */
  bit refuse
}

/* An assertion is written cond || G1, so that its text tells which guarantee it is. These are false;
   with ASK, all but the one that is asked for are true. */
#ifndef ASK
#define ASK 0
#endif
#define notAsked(n) (ASK != 0 && ASK != n)
bool G1 = notAsked(1), G2 = notAsked(2), G3 = notAsked(3), G4 = notAsked(4), G6 = notAsked(6);
bool ATTEMPT = notAsked(7); /* an execution whose end is unknown is never forgotten */
bool REFUSE = notAsked(8);  /* nor, under Refuse, followed by another one */
bool READS = notAsked(9);   /* what somebody was given is what stays */
#define must(guarantee, cond) assert((cond) || guarantee)

/* What an owner knows. The lease it believes in counts from when the command was sent. */
byte lease[CALLERS];   /* what is left of it, 0 when there is none */
byte pending[CALLERS]; /* what will be left of it if the command under way succeeds */

/* Messages. */
#define NOTHING 0
#define WAKE    1 /* the subscription stands, or stood: read */
#define READ    2 /* 'G' */
#define FREE    3 /* 'F' */
#define RECORD  4 /* the record */

#ifdef NOTICES
/* What a waiter knows. */
#define NOT    0
#define ASKED  1
#define STANDS 2
byte listening[CALLERS];  /* its subscription */
byte message[CALLERS];
byte messageToken[CALLERS];
byte recheck[CALLERS];    /* ticks until it reads even if nobody calls */
#endif

/* What a caller has come to. */
#define UNDECIDED   0
#define UNAVAILABLE 1
#define REPLAYED    2
#define INTERRUPTED 3
#define RECORDED    4
#define LEASELOST   5
#define NOTRECORDED 6
#define LEFT        7 /* an ignored error, or an outcome nobody knows */
byte result[CALLERS];
byte begun; /* callers */
bool dead[CALLERS];

/* Ghosts: what an observer knows who sees everything. No step depends on them. */
bool executing[CALLERS]; /* fn runs */
bool doubt[CALLERS];     /* fn began, and it did not say that it did nothing */
bool refusing[CALLERS];  /* the same, under Refuse */
byte outcome;            /* the token of what is recorded, or counts as recorded, 0 if nothing is */
byte given;              /* the token of an outcome that somebody was given */

bool expired;            /* the TTL of an outcome ended, or somebody forgot it */

byte faults = FAULTS;
byte breaks = BREAKS;
#if ACKS
byte tooFew = 1; /* how many claims may be given up for lack of replicas */
#endif
byte tokens = CALLERS + 1;
inline newToken(t) { t = tokens; tokens++ }

#include "redis.pml"
#include "replicas.pml"
#include "network.pml"
#include "caller.pml"
#include "world.pml"

/* Guarantee 5: with everybody's fn ending, nobody waits for ever. */
#define over(i) (result[i] != UNDECIDED || dead[i])
#if CALLERS == 2
#define allOver (over(0) && over(1))
#else
#define allOver (over(0) && over(1) && over(2))
#endif
#ifdef LIVENESS
ltl G5 { <> allOver }
#endif
