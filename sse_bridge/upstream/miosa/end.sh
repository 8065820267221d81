#!/bin/sh
# Ends the processes of one command: those that carry its marker in their environment, and those that are tied to them.
# The last word says what was seen:
#   sse-bridge:gone     the command was seen, and none of its processes is left
#   sse-bridge:left     some are left, or may be
#   sse-bridge:unseen   none was found
#   sse-bridge:blind    the sandbox's processes, or some of them, cannot be seen from here
#
# Parameters are shell assignments put in front of this file:
#   marker       the variable and its value, as /proc/*/environ shows them
#   age          what is older is none of the command's processes
#   looks        looks in a row without a process before the search ends
#   unseen       the last word if none was found by then
#   limit        time for everything
#   patience     time between SIGTERM and SIGKILL
#   pause        seconds between two looks
#   short_pause  the same once the time is up
# Times are hundredths of a second, as in /proc, unless they are said to be seconds.
#
# Needs what the smallest image has: a POSIX shell, cat, env, grep, head, ls, sed, sleep, tr. Busybox's grep and sed read
# a line up to its first NUL, hence tr. The whole has to stay below 4 KiB (docs/miosa.md §4): comments, indentation and
# the next line are left out when it is sent.

: "${marker:?}" "${age:?}" "${looks:?}" "${unseen:?}" "${limit:?}" "${patience:?}" "${pause:?}" "${short_pause:?}"
exec 2>/dev/null  # processes come and go
export LC_ALL=C  # names of processes need not be UTF-8

say() { echo "sse-bridge:$1"; [ "$1" = gone ]; exit; }
has() { case $1 in *" $2 "*) ;; *) return 1 ;; esac; }
env_of() { tr '\0\n' '\n ' < "/proc/$1/environ"; }
cwd_of() { cd -P "/proc/$1/cwd" && pwd -P; }

# Without /proc/uptime, a look counts as a tenth of a second.
now=0
tick() {
  if read -r up _ < /proc/uptime
  then now=$((${up%.*} * 100 + 1${up#*.} - 100))  # the 1 keeps "0.08" from being octal
  else now=$((now + 10))
  fi
}

# Which processes carry our marker, or another command's? `head` writes the name of each file before its text. A value may
# have lines that look like that, so our marker is then looked for in the process's own file.
find_marked() {
  marked=' ' others=' ' sighted=
  for word in $(head -n 999999 /dev/null /proc/[0-9]*/environ | tr '\0' '\n' | sed -n \
    "s/^==> .proc.\([0-9]*\).environ <==$/\1/p;s/^$marker$/ours/p;s/^${marker%%=*}=.*/other/p"); do
    case $word in
      ours) env_of "$pid" | grep -qxF "$marker" && marked="$marked$pid " ;;
      other) others="$others$pid " ;;
      *) pid=$word; [ "$pid" != $$ ] || sighted=1 ;;
    esac
  done
}

# Lists the processes that are alive: pid, parent, group, session, start. And the pipes and sockets that they print to.
# The state is the main thread's. Once that has ended, it is Z, though other threads may go on: their number is the 18th.
# A name may hold anything, line ends included, but has 15 characters at most.
list() {
  rows=$(cat /proc/[0-9]*/stat | sed -n -e :a -e '/) . [-0-9 ]\{60,\}$/!{N;s/\n/ /;ba' -e '}' -e \
    '/) [XZ]\( [-0-9]*\)\{16\} [01] /d
    s/^\([0-9]*\) (.*) . \([0-9]* [0-9]* [0-9]*\) \([-0-9]* \)\{15\}\([0-9]*\) .*/ \1 \2 \4/p')
  # shellcheck disable=SC2012
  pipes=$(ls -ln /proc/[0-9]*/fd/[12] | sed -n \
    's/.* .proc.\([0-9]*\).fd.. -> [a-z]*:.\([0-9]*\).$/ \1 p\2/p')
  case $rows in *" $$ $agent "*) ;; *) sighted= ;; esac
}

# Which processes are none of the command's? The platform's, ours, older ones, and those of other commands. If one of them
# shares a group, session or pipe, this ties no process to the command.
find_outsiders() {
  outsiders=$family foreign=' '
  # shellcheck disable=SC2086
  set -- $rows
  while [ $# -gt 4 ]; do
    if ! has "$marked$members" "$1" && ! has "$members" "$1:$5"; then
      if has "$family$others" "$1" || [ "$2" = $$ ] || [ "$5" -lt "$oldest" ] ||
        has "$keys" "g$1" || has "$keys" "s$1"  # the number was free again, and has a new owner
      then outsiders="$outsiders$1 " foreign="${foreign}g$3 s$4 "
      fi
    fi
    shift 5
  done
  # shellcheck disable=SC2086
  set -- $pipes
  while [ $# -gt 1 ]; do
    ! has "$outsiders" "$1" || foreign="$foreign$2 "
    shift 2
  done
}

# Which processes are the command's? Those that carry the marker or were found before, their descendants, and those in a
# group or session of one of these, or printing to its pipe.
find_members() {
  kin=$marked$members members=' ' old=$keys keys=' ' grown=1
  # shellcheck disable=SC2086
  tie $old
  while [ "$grown" ]; do
    grown=
    # shellcheck disable=SC2086
    set -- $rows
    while [ $# -gt 4 ]; do
      case "$kin$keys" in *" $1 "* | *" $1:$5 "* | *" c$2 "* | *" g$3 "* | *" s$4 "*)
        if ! has "$members" "$1:$5" && ! has "$family" "$1"; then
          members="$members$1:$5 " kin="${kin}c$1 " grown=1
          tie "g$3" "s$4"
          [ "$home" ] || home=$(cwd_of "$1")
          # The platform started it, as it did us. Orphans are children of process 1, too, but do not print to it.
          case "$agent $pipes" in
            "$2 "*" $1 p"*) rooted=1 ;;
            1\ *) ;;
            "$2 "*) rooted=1 ;;
          esac
        fi
      esac
      shift 5
    done
    # shellcheck disable=SC2086
    set -- $pipes
    while [ $# -gt 1 ]; do
      if has "$kin" "c$1"; then tie "$2"
      elif has "$keys" "$2" && ! has "$kin" "$1"; then kin="$kin$1 " grown=1
      fi
      shift 2
    done
  done
}

tie() {
  for key; do has "$foreign$keys" "$key" || keys="$keys$key " grown=1; done
}

# Sends SIGTERM once to each process; SIGKILL, again and again, once our patience is over.
end_members() {
  for member in $members; do
    if [ "$now" -gt "$kill_after" ]; then kill -KILL "${member%:*}"
    elif ! has "$told" "$member"; then kill -TERM "${member%:*}"; told="$told$member "
    fi
  done
}

# Is there a process that may be the command's though nothing ties it? If what the platform started was never seen, that
# is anything that it has started since. Else it is an orphan in the same folder, without the platform's environment.
has_strays() {
  given=$(env | grep -Ev '^(_|LC_ALL|SHLVL|.*PWD)=')
  # shellcheck disable=SC2086
  set -- $rows
  while [ $# -gt 4 ]; do
    if ! has "$outsiders" "$1"; then
      if [ "$2,$rooted" = "$agent," ]; then return; fi
      if [ "$2 $(cwd_of "$1")" = "1 ${home:-?}" ]; then
        kept=$(env_of "$1" | grep -cxF -e "$given")
        if [ "$kept" -lt "$(echo "$given" | grep -c '')" ]; then return; fi
      fi
    fi
    shift 5
  done
  return 1
}

# We are blind without /proc, or with that of another namespace.
read -r self _ < /proc/self/stat
[ "${self:-}" = $$ ] || say blind

# We and what we descend from, up to process 1. What follows the name in stat (which may hold spaces): state, parent,
# group, session, ..., start as the 20th.
family=' 1 ' pid=$$ oldest=
while read -r stat < "/proc/$pid/stat"; do
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$oldest" ] || oldest=$((${20} - age)) agent=$2
  family="$family$pid " pid=$2
done

tick
end=$((now + limit)) kill_after=$((now + patience))
quiet=0      # looks in a row that found no process
late=0       # looks since the time was up
seen=        # set once a look has found a process
rooted=      # set once a look has found the one that the platform started
home=        # the folder where it works
members=' '  # the command's processes at the last look, as pid:start
told=' '     # those that got their SIGTERM
keys=' '     # what ties others to them: g1 is a process group, s1 a session, p1 a pipe
while :; do
  find_marked
  if [ "$seen" ] || [ "$marked" != ' ' ]; then list; find_outsiders; find_members; fi
  if [ "$members" != ' ' ]; then
    seen=1 quiet=0
    end_members
  elif [ "$sighted" ]; then
    # A command that was seen before is gone after two looks.
    quiet=$((quiet + 1))
    if [ "$quiet" -ge "$looks" ] || [ "$seen,$quiet" = 1,2 ]; then
      [ -r /proc/1/stat ] || say blind  # `hidepid` shows us only our own
      [ "$seen" ] || say "$unseen"
      ! has_strays || say left
      say gone
    fi
  fi

  # When the time is up, processes that we have seen get a few more looks: they have just got their SIGKILL, and it
  # takes two looks without a process to be sure that they are gone.
  if [ "$now" -ge "$end" ]; then
    late=$((late + 1)) pause=$short_pause
    if [ -z "$seen" ] || [ "$late" -ge 5 ]; then break; fi
  fi
  sleep "$pause" || [ "$late" -gt 0 ] || sleep 1  # some take only whole seconds
  tick
done
[ -z "$seen" ] || say left
[ -z "$sighted" ] || say unseen
say blind
