import { type MixtrainError, raise } from '../core/error.ts'
import { joined, partOf, type Ranks, type Span, spansOf, sumOf } from '../train/ranks.ts'
import type { Mpi, Request } from './mpi.ts'

/** What a process is, for others and for messages. */
interface Member {
  readonly rank: number
  readonly host: string
}

/** What sums over ranks cost. */
interface Cost {
  readonly bytes: number
  readonly seconds: number
  readonly whole: number
  readonly sums: number
}

/** Ranks that know each other, and what their sums cost. */
export interface Team extends Ranks {
  readonly members: readonly Member[]
  /** Everyone's text, by rank. */
  readonly collect: (own: string) => Promise<readonly string[]>
  /** So far: bytes that this rank sent, seconds that it waited and added, those of the sums with what was summed, and sums. */
  readonly cost: () => Cost
}

/** How long a rank is waited for, seconds. */
export const PATIENCE = 40
/** Ranks other than 0 wait longer, so that rank 0, which knows who is late, says so first. */
const LATER = 10
/** How long a wait spins before it sleeps between two looks, ms, and how long it sleeps. */
const [SPIN, NAP] = [20, 1]
/** What a pause between two looks counts at most, ms: a job that was stopped as a whole, or starved, has not waited meanwhile. */
const PAUSE = 250

const nameOf = ({ rank, host }: Member): string => `rank ${rank} on ${host}`

const lost = (members: readonly Member[], seconds: number): MixtrainError => ({
  kind: 'device',
  device: 'MPI',
  message: `${members.map(nameOf).join(', ')} did not answer for ${seconds} seconds: it hangs, was stopped, or cannot be reached`,
})

/** Waits for requests; those that are not done in time are named by `late`. */
const done = async (requests: readonly Request[], seconds: number, late: (open: readonly number[]) => never) => {
  const open = new Set(requests.keys())
  let [waited, looked] = [0, performance.now()]
  for (;;) {
    for (const i of open) if (requests[i]()) open.delete(i)
    if (open.size === 0) return
    const now = performance.now()
    waited += Math.min(now - looked, PAUSE)
    looked = now
    if (waited > 1000 * seconds) late([...open])
    await new Promise<void>((resolve) => (waited < SPIN ? setImmediate(resolve) : setTimeout(resolve, NAP)))
  }
}

/** `count` bytes of text, filled up with zeros. */
const padded = (text: string, count: number): Uint8Array => {
  const bytes = new Uint8Array(count)
  bytes.set(new TextEncoder().encode(text).subarray(0, count))
  return bytes
}
const unpadded = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\0+$/, '')

/** Everyone's text of at most `length` bytes, by rank. */
const texts = async (mpi: Mpi, own: string, length: number, seconds: number): Promise<readonly string[]> => {
  const all = new Uint8Array(mpi.size * length)
  await done([mpi.gatherBytes(padded(own, length), all)], seconds, () =>
    raise({
      kind: 'device',
      device: 'MPI',
      message: `some of ${mpi.size} ranks did not answer for ${seconds} seconds`,
    }),
  )
  return Array.from({ length: mpi.size }, (_, r) => unpadded(all.subarray(r * length, (r + 1) * length)))
}

/** Sums of one length over ranks: in arrays that are there once, for new ones cost more than what is sent. */
interface Exchange {
  /** Sets this rank's i-th partial sum. */
  readonly give: (i: number, sum: Float32Array) => void
  /** The sum of all, in an array of its own. */
  readonly run: (together: (request: Request) => Promise<void>) => Promise<Float32Array>
  /** Bytes that this rank sends. */
  readonly bytes: number
}

/** Rank r adds the r-th slice of all partial sums, by the tree over `count` micro-batches, and everyone gets all slices. */
const exchangeOf = (mpi: Mpi, count: number, length: number): Exchange => {
  const { rank, size } = mpi
  const ranks = Array.from({ length: size }, (_, r) => ({ rank: r, size }))
  const spans = ranks.map((r) => spansOf(count, partOf(count, r)))
  const cuts = ranks.map((r) => partOf(length, r))
  const widths = cuts.map(([lo, hi]) => hi - lo)
  const [width, own] = [widths[rank], spans[rank].length]
  const sent = widths.map((w) => own * w)
  const received = spans.map((s) => s.length * width)
  const send = new Float32Array(own * length)
  const slices = new Float32Array(received.reduce((a, b) => a + b, 0))
  const known = spans
    .flat()
    .map((span, i): readonly [Span, Float32Array] => [span, slices.subarray(i * width, (i + 1) * width)])
  const result = new Float32Array(length)
  return {
    give: (i, sum) => {
      for (const [r, [lo, hi]] of cuts.entries()) send.set(sum.subarray(lo, hi), own * lo + i * widths[r])
    },
    run: async (together) => {
      await together(mpi.exchange(send, sent, slices, received))
      await together(mpi.gather(joined(count, known), result, widths))
      return result
    },
    bytes: 4 * (send.length - sent[rank] + (size - 1) * width),
  }
}

const HOST = 128
const HASH = 64

/** The processes of a job get to know each other. */
export const team = async (mpi: Mpi, host: string, patience = PATIENCE): Promise<Team> => {
  const { rank, size } = mpi
  const members = (await texts(mpi, host, HOST, patience)).map((h, r): Member => ({ rank: r, host: h }))
  let [bytes, seconds, whole, sums] = [0, 0, 0, 0]

  /** Everyone has come here. Rank 0 hears of each, and names who is late. */
  const meet = async (): Promise<void> => {
    const token = Uint8Array.of(1)
    const others = members.filter((m) => m.rank !== 0)
    if (rank === 0)
      await done(
        others.map((m) => mpi.receive(new Uint8Array(1), m.rank)),
        patience,
        (open) =>
          raise(
            lost(
              open.map((i) => others[i]),
              patience,
            ),
          ),
      )
    else await done([mpi.send(token, 0)], patience + LATER, () => raise(lost([members[0]], patience + LATER)))
  }
  /** A collective operation. */
  const together = (request: Request) =>
    done([request], patience + LATER, () =>
      raise(rank === 0 ? lost(members.slice(1), patience) : lost([members[0]], patience + LATER)),
    )

  /** A sum is made, whose own part took from `started` to `begun`. */
  const spent = (started: number, begun: number): void => {
    const now = performance.now()
    seconds += (now - begun) / 1000
    whole += (now - started) / 1000
    sums++
  }
  const exchanges = new Map<string, Exchange>()
  const exchangeFor = (count: number, length: number): Exchange => {
    const key = `${count} ${length}`
    const there = exchanges.get(key) ?? exchangeOf(mpi, count, length)
    exchanges.set(key, there)
    return there
  }

  const reduce: Ranks['reduce'] = async (count, partial) => {
    const started = performance.now()
    const [first, ...others] = spansOf(count, partOf(count, mpi))
    const sum = await partial(first)
    const exchange = exchangeFor(count, sum.length)
    exchange.give(0, sum)
    for (const [i, span] of others.entries()) exchange.give(i + 1, await partial(span))
    const begun = performance.now()
    await meet()
    const result = await exchange.run(together)
    bytes += exchange.bytes
    spent(started, begun)
    return result
  }

  const swap: NonNullable<Ranks['swap']> = async (count, partial, arrays) => {
    const started = performance.now()
    const [half] = spansOf(count, partOf(count, mpi))
    const sum = await partial(half)
    const begun = performance.now()
    const both = arrays(sum)
    const it = members[1 - rank]
    const most = rank === 0 ? patience : patience + LATER
    await done([mpi.swap(both, it.rank)], most, () => raise(lost([it], most)))
    bytes += 4 * both.own.reduce((n, { length }) => n + length, 0)
    spent(started, begun)
    return sum
  }

  const collect = async (text: string): Promise<readonly string[]> => {
    await meet()
    const own = new TextEncoder().encode(text)
    const counts = new Float64Array(size)
    await together(mpi.gatherBytes(new Uint8Array(Float64Array.of(own.length).buffer), new Uint8Array(counts.buffer)))
    const longest = Math.max(...counts)
    const all = new Uint8Array(size * longest)
    const sent = new Uint8Array(longest)
    sent.set(own)
    await together(mpi.gatherBytes(sent, all))
    return Array.from(counts, (n, r) => new TextDecoder().decode(all.subarray(r * longest, r * longest + n)))
  }

  return {
    rank,
    size,
    members,
    sum: async (count, leaf) => Float32Array.from(await reduce(count, (span) => sumOf(span, leaf))),
    reduce,
    ...(size === 2 ? { swap } : {}),
    collect,
    total: async (counts) => {
      await meet()
      const all = new Uint8Array(size * counts.byteLength)
      await together(mpi.gatherBytes(new Uint8Array(Float64Array.from(counts).buffer), all))
      const values = new Float64Array(all.buffer)
      return counts.map((_, i) => members.reduce((n, m) => n + values[m.rank * counts.length + i], 0))
    },
    cost: () => ({ bytes, seconds, whole, sums }),
  }
}

/** Compares what all ranks must have in common: a hash of each, by what it is of. @throws an error that names a rank that differs from rank 0, and in what. */
export const agree = async (
  mpi: Mpi,
  { members }: Team,
  hashes: Readonly<Record<string, string>>,
  patience = PATIENCE,
) => {
  for (const [what, own] of Object.entries(hashes)) {
    const all = await texts(mpi, own, HASH, patience)
    const other = all.findIndex((h) => h !== all[0])
    if (other > 0)
      raise({
        kind: 'device',
        device: 'MPI',
        message: `${nameOf(members[other])} has other ${what} than ${nameOf(members[0])}: all ranks of a job train the same`,
      })
  }
}
