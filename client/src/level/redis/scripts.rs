//! What has to happen in a server at once.
//!
//! A key's lease lies under a key of its own ([`super::names::lease`]): 16 digits of the token, and behind them what
//! the key had when the lease was given: `-` for nothing, or the header of the stale entry, which no other entry
//! shares. Everything that writes through this library voids it.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::{Command, Effect};

/// A script, and the name that servers know it by once they have seen it.
pub(super) struct Script {
    code: String,
    sha: String,
}

impl Script {
    fn of(body: &str) -> Self {
        let code = format!("{HEAD}{body}");
        let sha = redis::Script::new(&code).get_hash().to_owned();
        Self { code, sha }
    }

    /// Runs it by its name, which a server may not know: then it says `NOSCRIPT`, and has done nothing.
    pub(super) fn by_name(&self, call: &Call) -> Command {
        call.command("EVALSHA", &self.sha)
    }

    /// Runs it, and lets the server know its name.
    pub(super) fn in_full(&self, call: &Call) -> Command {
        call.command("EVAL", &self.code)
    }
}

/// What a script is run with.
pub(super) struct Call {
    pub(super) script: &'static Script,
    pub(super) effect: Effect,
    pub(super) keys: Vec<Bytes>,
    pub(super) arguments: Vec<Bytes>,
}

impl Call {
    fn command(&self, name: &str, script: &str) -> Command {
        let command = match self.effect {
            Effect::Reads => Command::read(name),
            Effect::Writes => Command::write(name),
        };
        let command = command.arg(script).arg(self.keys.len().to_string());
        let command = self.keys.iter().fold(command, Command::key);
        self.arguments.iter().fold(command, Command::arg)
    }
}

/// `head(v)`: `-` for nothing, `+` for a plain value, or the header of a frame.
const HEAD: &str = r"
local magic = '\154HOARD\247\139\029\196\224\147\095\178\006\216'
local function head(v)
  if not v then return '-' end
  if string.sub(v, 1, 16) ~= magic then return '+' end
  local n = tonumber(string.sub(v, 17, 24), 16)
  if not n or n < 26 or n > #v then return '+' end
  return string.sub(v, 1, n)
end
local function there(v, h)
  return v and (h == '+' or string.sub(h, 25, 25) == 'v')
end
local function put(key, blob, px)
  if px == '' then redis.call('SET', key, blob) else redis.call('SET', key, blob, 'PX', px) end
end
";

/// Keys: the key, its lease. Arguments: token, milliseconds, what was seen. Answers with what the caller has to do:
/// `load`, `wait` (so many milliseconds), or look `again`.
const LEASE: &str = r"
local held = redis.call('GET', KEYS[2])
if held and string.sub(held, 1, 16) ~= ARGV[1] then
  return {'wait', redis.call('PTTL', KEYS[2])}
end
if head(redis.call('GET', KEYS[1])) ~= ARGV[3] then
  if held then redis.call('DEL', KEYS[2]) end
  return {'again', 0}
end
redis.call('SET', KEYS[2], ARGV[1] .. ARGV[3], 'PX', ARGV[2])
return {'load', 0}
";

/// Keys: the key, its lease. Arguments: token, entry, milliseconds or nothing. 1: filled; 0: the token is void.
const FILL: &str = r"
local held = redis.call('GET', KEYS[2])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if head(redis.call('GET', KEYS[1])) ~= string.sub(held, 17) then return 0 end
put(KEYS[1], ARGV[2], ARGV[3])
return 1
";

/// Keys: the lease. Arguments: token.
const RELEASE: &str = r"
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Keys: the key, its lease. Arguments: entry, milliseconds or nothing, condition, the value that it speaks of, and
/// the header of an entry of which the caller knows that its tags are live. Answers with 1 or 0; or with the header of
/// an entry whose tags have to be looked at first.
const SET: &str = r"
if ARGV[3] ~= 'always' then
  local v = redis.call('GET', KEYS[1])
  local h = head(v)
  if h ~= '+' and string.sub(h, 26, 26) == 't' and h ~= ARGV[5] then return h end
  local holds = there(v, h)
  if ARGV[3] == 'absent' then
    holds = not holds
  elseif ARGV[3] == 'equal' and holds then
    if h == '+' then holds = v == ARGV[4] else holds = string.sub(v, #h + 1) == ARGV[4] end
  end
  if not holds then return 0 end
end
put(KEYS[1], ARGV[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
";

/// Keys: the key, its lease. Answers with 1 or 0: whether it was there; or with its header, if it had tags.
const REMOVE: &str = r"
local v = redis.call('GET', KEYS[1])
local h = head(v)
redis.call('DEL', KEYS[1], KEYS[2])
if not there(v, h) then return 0 end
if h ~= '+' and string.sub(h, 26, 26) == 't' then return h end
return 1
";

/// Keys: the key. Arguments: a header. Removes the entry that has it.
const DROP: &str = r"
if head(redis.call('GET', KEYS[1])) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Keys: the clock. Winds it, and answers with its new time. Microseconds of the server's clock, as long as that does
/// not go back: so a clock that was evicted goes on behind where it was.
const TICK: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local before = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if now <= before then now = before + 1 end
now = string.format('%.0f', now)
redis.call('SET', KEYS[1], now)
return now
";

/// Keys: a tag. Arguments: a time. Everything is stale that was loaded before.
const RAISE: &str = r"
if (tonumber(redis.call('GET', KEYS[1]) or '0') or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
";

pub(super) static LEASE_IT: LazyLock<Script> = LazyLock::new(|| Script::of(LEASE));
pub(super) static FILL_IT: LazyLock<Script> = LazyLock::new(|| Script::of(FILL));
pub(super) static RELEASE_IT: LazyLock<Script> = LazyLock::new(|| Script::of(RELEASE));
pub(super) static SET_IT: LazyLock<Script> = LazyLock::new(|| Script::of(SET));
pub(super) static REMOVE_IT: LazyLock<Script> = LazyLock::new(|| Script::of(REMOVE));
pub(super) static DROP_IT: LazyLock<Script> = LazyLock::new(|| Script::of(DROP));
pub(super) static TICK_IT: LazyLock<Script> = LazyLock::new(|| Script::of(TICK));
pub(super) static RAISE_IT: LazyLock<Script> = LazyLock::new(|| Script::of(RAISE));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::redis::frame::MAGIC;

    #[test]
    fn scripts_know_the_same_magic() {
        let mut spelt = String::new();
        for byte in MAGIC {
            match byte {
                b'A'..=b'Z' => spelt.push(char::from(byte)),
                other => spelt.push_str(&format!("\\{other:03}")),
            }
        }
        assert!(HEAD.contains(&format!("'{spelt}'")), "{spelt}");
    }
}
