/*
 * What happens by itself: time, late deliveries, subscriptions, the end of TTLs, death,
 * replication and failover.
 */

#define tick(x) x = (x > 0 -> x - 1 : 0)

#if CALLERS == 2
#define sum(a) (a[0] + a[1])
#else
#define sum(a) (a[0] + a[1] + a[2])
#endif
#if REPLICAS == 0
#define lefts rec[0].left
#elif REPLICAS == 1
#define lefts (rec[0].left + rec[1].left)
#else
#define lefts (rec[0].left + rec[1].left + rec[2].left)
#endif

#ifdef NOTICES
#define rechecks sum(recheck)
#define tickRecheck(i) tick(recheck[i])
#else
#define rechecks 0
#define tickRecheck(i) skip
#endif

active proctype Clock() {
  byte i;
end:
  do
  :: d_step {
       sum(lease) + sum(pending) + rechecks + lefts > 0 ->
       for (i : 0 .. CALLERS - 1) { tick(lease[i]); tick(pending[i]); tickRecheck(i) }
       for (i : 0 .. REPLICAS) { tick(rec[i].left) }
       i = 0
     }
  od
}

/* Late deliveries. */
active proctype Network() {
  byte what, to, token, attempt, seen, k, n;
  bool refuse, flag;
end:
  do
  :: atomic { slot[0].what != 0 -> deliver(0) }
  :: atomic { slot[1].what != 0 -> deliver(1) }
  od
}

#ifdef NOTICES
/* A subscription is confirmed; it breaks, and the waiter hears of it. Either wakes the waiter. */
#ifdef BREAK_CONFIRM_UNHEARD
#define wakeUp(i) skip
#else
#define wakeUp(i) message[i] = WAKE
#endif
#define confirm(i) listening[i] == ASKED -> listening[i] = STANDS; wakeUp(i)
#define lose(i) breaks > 0 && listening[i] == STANDS -> breaks--; listening[i] = ASKED; wakeUp(i)
active proctype Subscriptions() {
end:
  do
  :: atomic { confirm(0) }
  :: atomic { confirm(1) }
  :: atomic { lose(0) }
  :: atomic { lose(1) }
  od
}
#endif

#ifdef EXPIRY
/* Once: the TTL of what nobody holds comes to its end, or an operator forgets it. */
active proctype Expiry() {
  byte i, t;
  atomic {
    rec[0].kind != ABSENT && rec[0].left == 0;
    t = rec[0].token;
    erase(0, t);
    t = 0;
    expired = true; outcome = 0;
    for (i : 0 .. CALLERS - 1) { doubt[i] = false; refusing[i] = false }
    i = 0
  }
}
#endif

#ifdef DEATHS
active proctype Death() {
  byte i;
  atomic {
    if
    :: select(i : 0 .. CALLERS - 1); dead[i] = true
    :: true
    fi;
    i = 0
  }
}
#endif

#if REPLICAS > 0
active proctype Replication() {
  byte s, i;
end:
  do
  :: atomic { /* a replica catches up */
       select(s : 0 .. REPLICAS);
       if
       :: source[s] != s ->
          copy(source[s], s);
          for (i : 0 .. CALLERS - 1) {
            if
            :: conn[i] == source[s] && acked[i] != BROKEN -> acked[i] = acked[i] | (1 << s)
            :: else
            fi
          }
       :: source[s] == s
       fi;
       s = 0; i = 0
     }
  :: atomic { /* failover */
       !failedOver -> failedOver = true;
       select(s : 1 .. REPLICAS);
       master = s; source[s] = s;
       must(READS, given == 0 || rec[s].kind == OUTCOME && rec[s].token == given);
       s = 0
     }
  :: atomic { /* the others follow the new master; the old one closes its connections */
       failedOver ->
       select(s : 0 .. REPLICAS);
       if
       :: s != master && source[s] != master ->
          source[s] = master; copy(master, s);
          for (i : 0 .. CALLERS - 1) {
            if
            :: conn[i] == s -> reconnect(i)
            :: conn[i] != s
            fi
          }
       :: else
       fi;
       s = 0; i = 0
     }
  :: atomic { /* a caller notices */
       failedOver ->
       select(i : 0 .. CALLERS - 1);
       if
       :: conn[i] != master -> reconnect(i)
       :: conn[i] == master
       fi;
       i = 0
     }
  od
}
#endif
