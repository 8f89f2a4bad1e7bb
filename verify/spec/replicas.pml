/*
 * Replication and failover. A replica has what its source had at some earlier time; a write is
 * acknowledged by a replica that copied its server since. After a failover the old master goes on
 * answering those who have not noticed, until it is made a replica itself.
 */

#if REPLICAS == 0

#define enough(i, n) true
#define nextWrite(i, n) skip
#define noWait(i) skip
#define recorded(t) skip

#else

#define BROKEN 8 /* nobody waits for an acknowledgement, or its connection is gone */
byte source[SERVERS]; /* whom it copies; a master, itself */
byte master;
byte acked[CALLERS] = BROKEN; /* bit k: server k has the last write of caller i */
bool failedOver;

#define acks(i) ((acked[i] & 1) + ((acked[i] >> 1) & 1) + ((acked[i] >> 2) & 1))

/* WAIT on the connection of the command before. */
#define enough(i, n) ((n) == 0 || acks(i) >= (n))
#define nextWrite(i, n) acked[i] = ((n) == 0 -> BROKEN : 0)
#define noWait(i) acked[i] = BROKEN

/* The owner was told that its outcome is recorded, so it counts. */
#define recorded(t) outcome = t

inline copy(from, to) {
  rec[to].kind = rec[from].kind; rec[to].token = rec[from].token;
  rec[to].attempt = rec[from].attempt; rec[to].left = rec[from].left;
  rec[to].refuse = rec[from].refuse
}

/* Who speaks to a server that is not the master any more has to connect anew, sooner or later. A WAIT
   on the old connection fails. */
inline reconnect(i) { conn[i] = master; acked[i] = BROKEN }

#endif
