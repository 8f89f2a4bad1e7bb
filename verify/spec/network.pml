/*
 * Commands under way with nobody who waits for the reply: the delivery before a repetition, a
 * command that was given up, a release in the background.
 */

#define CLAIM    1
#define RENEW    2
#define COMMIT   3
#define RELEASE  4
#define TAKEOVER 5
#define COMPARE  6 /* a commit by SET IFEQ */
#define PUBLISH  7 /* its message */

typedef Command {
  byte what, token, seen, attempt;
  bool refuse;
  bool flag; /* RELEASE: the record stays. TAKEOVER: the verdict */
  byte to
}
Command slot[SLOTS];

inline linger(cmd, whose, old, number, policy, mark) {
  for (n : 0 .. SLOTS - 1) {
    if
    :: slot[n].what == 0 ->
       slot[n].what = cmd; slot[n].token = whose; slot[n].seen = old; slot[n].attempt = number;
       slot[n].refuse = policy; slot[n].flag = mark; slot[n].to = server(me);
       break
    :: slot[n].what != 0
    fi
  }
  n = 0
}

inline clear(i) {
  slot[i].what = 0; slot[i].token = 0; slot[i].seen = 0; slot[i].attempt = 0;
  slot[i].refuse = false; slot[i].flag = false; slot[i].to = 0
}

inline deliver(i) {
  what = slot[i].what; to = slot[i].to; token = slot[i].token; attempt = slot[i].attempt;
  refuse = slot[i].refuse; flag = slot[i].flag; seen = slot[i].seen;
  clear(i);
  if
  :: what == CLAIM -> claimScript(to, token, refuse)
  :: what == RENEW -> renewScript(to, token)
  :: what == COMMIT -> commitScript(to, token)
#ifdef COMPARISON
  :: what == COMPARE -> compareAndSet(to, token)
  :: what == PUBLISH -> publish(to, RECORD, token)
#endif
  :: what == RELEASE -> releaseScript(to, token, attempt, refuse, flag)
  :: what == TAKEOVER -> takeOverScript(to, seen, token, attempt, refuse, flag)
  fi;
  what = 0; to = 0; token = 0; attempt = 0; refuse = false; flag = false; seen = 0
}
