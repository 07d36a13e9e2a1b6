"""What lies in Redis, and the scripts that read and write it.

    mitmproxy-aia:1:issuers:<SHA-256 of a subject>   a hash; expires with its last certificate
        <SHA-256 of the DER>        "<first use> <end of validity> <origin>\\n" and the DER
        <SHA-256 of the DER>:used   the last use
    mitmproxy-aia:1:lease:<SHA-256 of a question>    a token of the node that downloads

All times are in seconds since 1970. Whoever can write to this Redis can put anything there:
what is read is bounded, and what is no certificate of that subject is passed over. Each write
drops from its hash what has expired, and what is not as described here.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator, Sequence

from mitmproxy_aia.cache import Entry
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.names import printable

PREFIX = "mitmproxy-aia:1:"
ISSUERS = f"{PREFIX}issuers:"
USED = ":used"
CERTIFICATES_PER_SUBJECT = 50
VALUE_BYTES = 65_536
_ORIGIN_CHARACTERS = 1_000
_FIELDS = 4 * CERTIFICATES_PER_SUBJECT

READ = f"""
-- KEYS: issuers, lease. ARGV: token, milliseconds (0: no lease is wanted).
-- Returns whether the caller got the lease (1), must wait for it (0), or neither (-1); and
-- value, last use, value, last use ...
local found = {{}}
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'hash' and redis.call('HLEN', KEYS[1]) <= {_FIELDS} then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local bytes = redis.call('HSTRLEN', KEYS[1], field)
    if #field == 64 and bytes <= {VALUE_BYTES} and #found < {2 * CERTIFICATES_PER_SUBJECT} then
      table.insert(found, redis.call('HGET', KEYS[1], field))
      local used = redis.call('HGET', KEYS[1], field .. '{USED}') or ''
      table.insert(found, string.sub(used, 1, 20))
    end
  end
end
if #found > 0 or ARGV[2] == '0' then return {{-1, found}} end
-- pcall: on a replica, or when the memory is full, there is no lease but still an answer.
local got = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if got and got.ok then return {{1, found}} end
if got then return {{-1, found}} end
-- An answer that was lost on its way is asked for again with the same token.
if redis.call('GET', KEYS[2]) == ARGV[1] then return {{1, found}} end
return {{0, found}}
"""

WRITE = f"""
-- KEYS: issuers, one for each certificate. ARGV: now, by how many seconds a last use must be
-- later to be written; and five for each certificate: field, first line, DER, last use, seconds
-- until it expires. Returns how many were new.
local now, resolution, new = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local function is_sound(key, field)
  if #field ~= 64 then
    local owner = string.sub(field, 1, 64)
    return field == owner .. '{USED}' and redis.call('HEXISTS', key, owner) == 1
  end
  if redis.call('HSTRLEN', key, field) > {VALUE_BYTES} then return false end
  local ends = string.match(redis.call('HGET', key, field) or '', '^%d+ (%d+) ')
  return ends and tonumber(ends) >= now
end
for i, key in ipairs(KEYS) do
  local field, line, der = ARGV[5 * i - 2], ARGV[5 * i - 1], ARGV[5 * i]
  local used, left = tonumber(ARGV[5 * i + 1]), tonumber(ARGV[5 * i + 2])
  local kind = redis.call('TYPE', key).ok
  -- Nothing of ours is of another type or of this size. It would be in the way forever.
  if (kind ~= 'hash' and kind ~= 'none')
      or (kind == 'hash' and redis.call('HLEN', key) > {_FIELDS}) then
    redis.call('DEL', key)
  end
  -- The hash lives as long as its last certificate, and the others must not live as long.
  for _, each in ipairs(redis.call('HKEYS', key)) do
    if not is_sound(key, each) then redis.call('HDEL', key, each, each .. '{USED}') end
  end
  if redis.call('HLEN', key) >= {2 * CERTIFICATES_PER_SUBJECT}
      and redis.call('HEXISTS', key, field) == 0 then
    redis.call('DEL', key)
  end
  local there = redis.call('HGET', key, field)
  if not there or string.sub(there, -#der) ~= der then
    redis.call('HSET', key, field, line .. der)
    if not there then new = new + 1 end
  end
  local before = tonumber(redis.call('HGET', key, field .. '{USED}') or '')
  if not before or before + resolution <= used then
    redis.call('HSET', key, field .. '{USED}', ARGV[5 * i + 1])
  end
  if redis.call('TTL', key) < left then redis.call('EXPIRE', key, left) end
end
return new
"""

RELEASE = """
-- KEYS: lease. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def issuers_key(subject: bytes) -> str:
    return ISSUERS + hashlib.sha256(subject).hexdigest()


def lease_key(subject: bytes, urls: Sequence[str]) -> str:
    """The lease of who would download an issuer of this name from these URLs.

    They belong to it, since anybody can make a certificate that names a popular issuer and a
    URL that hangs: only who would wait for the same servers is to wait for the lease.
    """
    question = hashlib.sha256(hashlib.sha256(subject).digest())
    for url in urls:
        question.update(hashlib.sha256(url.encode(errors="surrogatepass")).digest())
    return f"{PREFIX}lease:{question.hexdigest()}"


def write_arguments(
    entries: Sequence[Entry], now: datetime.datetime
) -> tuple[list[str], list[str | bytes | int]]:
    """KEYS for the script that writes `entries`, and the five of its ARGV for each. Expired
    ones are left out, and so are those too large to be read again."""
    keys: list[str] = []
    arguments: list[str | bytes | int] = []
    for entry in entries:
        certificate = entry.certificate
        origin = printable(entry.origin, _ORIGIN_CHARACTERS)
        first, ends = int(entry.first_used.timestamp()), int(certificate.not_after.timestamp())
        line = f"{first} {ends} {origin}\n".encode()
        left = int((certificate.not_after - now).total_seconds())
        if left <= 0 or len(line) + len(certificate.der) > VALUE_BYTES:
            continue
        keys.append(issuers_key(certificate.subject))
        arguments += [certificate.fingerprint.hex(), line, certificate.der]
        arguments += [int(entry.last_used.timestamp()), left]
    return keys, arguments


def read_answer(answer: object) -> tuple[int, list[Entry]]:
    """What the reading script returned: the state of the lease, and the entries that are
    sound. Raises ValueError if that script cannot have returned it."""
    if not isinstance(answer, list) or len(answer) != 2:
        raise ValueError("not an answer of this script")
    state, pairs = answer
    if not isinstance(state, int) or not isinstance(pairs, list) or len(pairs) % 2:
        raise ValueError("not an answer of this script")
    return state, list(_entries(pairs))


def read_number(answer: object) -> int:
    """What the other scripts return. Raises ValueError if they cannot have."""
    if not isinstance(answer, int):
        raise ValueError("not an answer of this script")
    return answer


def _entries(pairs: list[object]) -> Iterator[Entry]:
    for value, used in zip(pairs[::2], pairs[1::2], strict=True):
        if isinstance(value, bytes) and isinstance(used, bytes):
            entry = _entry(value, used)
            if entry is not None:
                yield entry


def _entry(value: bytes, used: bytes) -> Entry | None:
    line, _, der = value.partition(b"\n")
    try:
        first, _, rest = line.decode().partition(" ")
        ends, _, origin = rest.partition(" ")
        int(ends)  # the writing script drops what has none
        return Entry(
            Certificate.from_der(der),
            printable(origin, _ORIGIN_CHARACTERS),
            datetime.datetime.fromtimestamp(int(first), datetime.UTC),
            datetime.datetime.fromtimestamp(int(used or first), datetime.UTC),
        )
    except (ValueError, OverflowError, OSError):
        return None
