#!/bin/sh
# Ends every process that carries a marker in its environment. Says `sse-bridge:gone` once none is left, or
# `sse-bridge:left` if some may be.
#
# Parameters are shell assignments put in front of this file:
#   marker       the variable and its value, as /proc/*/environ shows them
#   looks        looks in a row without a process before the command counts as gone
#   limit        time for everything, in hundredths of a second
#   patience     time between SIGTERM and SIGKILL, in hundredths of a second
#   pause        seconds between two looks
#   short_pause  the same once the time is up
#
# Needs only what the smallest image has: a POSIX shell, grep and sleep.

: "${marker:?}" "${looks:?}" "${limit:?}" "${patience:?}" "${pause:?}" "${short_pause:?}"

# The time, in hundredths of a second, is that of /proc/uptime. Without that file, a look counts as a tenth.
now=0
look_at_clock() {
  if { read -r up _ < /proc/uptime; } 2>/dev/null
  then now=$((${up%.*} * 100 + 1${up#*.} - 100))  # the 1 keeps "0.08" from being octal
  else now=$((now + 10))
  fi
}

# Without /proc or grep we see no process at all, so we cannot call the command gone.
grep -q . /proc/$$/stat 2>/dev/null || { echo sse-bridge:left; exit 1; }

look_at_clock
end=$((now + limit)) kill_after=$((now + patience))
quiet=0      # looks in a row that found no process
late=0       # looks since the time was up
seen=        # set once a look has found a process
told=' '     # processes that got their SIGTERM
groups=' '   # process groups whose leader carries the marker
while :; do
  # Which processes carry the marker? A zombie has no environment, so grep does not find it.
  marked=' '
  # shellcheck disable=SC2013
  for file in $(grep -lsF -- "$marker" /proc/[0-9]*/environ); do
    pid=${file#/proc/}
    marked="$marked${pid%/environ} "
  done

  # Which processes are alive and ours? Those that carry the marker, and the members of a group whose leader carries it,
  # so that `env -i` in a script does not escape. Reading every stat is what costs (a shell reads a byte for each system
  # call), so it waits until a marked process was found.
  alive=
  if [ "$marked$groups" != '  ' ]; then
    for dir in /proc/[0-9]*; do
      { read -r stat < "$dir/stat"; } 2>/dev/null || continue
      pid=${dir#/proc/}
      # The fields after the name, which may hold spaces: state, parent, group.
      # shellcheck disable=SC2086
      set -- ${stat##*) }
      [ "$1" = Z ] && continue
      case $marked in
        *" $pid "*) [ "$3" = "$pid" ] && groups="$groups$pid " ;;
        *) case $groups in *" $3 "*) ;; *) continue ;; esac ;;
      esac
      alive="$alive $pid"
    done
  fi

  if [ -n "$alive" ]; then
    # SIGTERM once for each process; SIGKILL, again and again, once our patience is over.
    seen=1 quiet=0
    for pid in $alive; do
      if [ "$now" -gt "$kill_after" ]; then kill -KILL "$pid" 2>/dev/null
      else case $told in
        *" $pid "*) ;;
        *) kill -TERM "$pid" 2>/dev/null; told="$told$pid " ;;
      esac; fi
    done
  else
    # A command that was seen before is gone after two looks.
    quiet=$((quiet + 1))
    if [ "$quiet" -ge "$looks" ] || { [ -n "$seen" ] && [ "$quiet" -ge 2 ]; }; then echo sse-bridge:gone; exit 0; fi
  fi

  # When the time is up, processes that we have seen get a few more looks: they have just got their SIGKILL, and it
  # takes two looks without a process to be sure that they are gone.
  if [ "$now" -ge "$end" ]; then
    late=$((late + 1)) pause=$short_pause
    if [ -z "$seen" ] || [ "$late" -ge 5 ]; then break; fi
  fi
  sleep "$pause" 2>/dev/null || [ "$late" -gt 0 ] || sleep 1  # some take only whole seconds
  look_at_clock
done
echo sse-bridge:left
exit 1
