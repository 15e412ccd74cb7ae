import { type MixtrainError, raise } from '../core/error.ts'
import { joined, partOf, type Ranks, type Span, spansOf, sumOf } from '../train/ranks.ts'
import type { Mpi, Request } from './mpi.ts'

/** What a process is, for others and for messages. */
export interface Member {
  readonly rank: number
  readonly host: string
}

/** What sums over ranks cost. */
export interface Cost {
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

const nameOf = ({ rank, host }: Member): string => `rank ${rank} on ${host}`

const lost = (members: readonly Member[], seconds: number): MixtrainError => ({
  kind: 'device',
  device: 'MPI',
  message: `${members.map(nameOf).join(', ')} did not answer for ${seconds} seconds: it hangs, was stopped, or cannot be reached`,
})

/** Waits for requests; those that are not done in time are named by `late`. */
const done = async (requests: readonly Request[], seconds: number, late: (open: readonly number[]) => never) => {
  const begun = performance.now()
  const open = new Set(requests.keys())
  for (;;) {
    for (const i of open) if (requests[i]()) open.delete(i)
    if (open.size === 0) return
    const waited = performance.now() - begun
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

  const reduce: Ranks['reduce'] = async (count, partial) => {
    const spans = members.map((m) => spansOf(count, partOf(count, { rank: m.rank, size })))
    const own: Float32Array[] = []
    const started = performance.now()
    for (const span of spans[rank]) own.push(await partial(span))
    const begun = performance.now()
    await meet()
    // Rank r adds the r-th slice of all partial sums, by the tree, and everyone gets all slices.
    const [{ length }] = own
    const cuts = members.map((m) => partOf(length, { rank: m.rank, size }))
    const [from, to] = cuts[rank]
    const width = to - from
    const send = new Float32Array(own.length * length)
    let at = 0
    for (const [lo, hi] of cuts)
      for (const x of own) {
        send.set(x.subarray(lo, hi), at)
        at += hi - lo
      }
    const received = spans.map((s) => s.length * width)
    const slices = new Float32Array(received.reduce((a, b) => a + b, 0))
    const sent = cuts.map(([lo, hi]) => own.length * (hi - lo))
    await together(mpi.exchange(send, sent, slices, received))
    const known = spans
      .flat()
      .map((span, i): readonly [Span, Float32Array] => [span, slices.subarray(i * width, (i + 1) * width)])
    const slice = joined(count, known)
    const result = new Float32Array(length)
    await together(
      mpi.gather(
        slice,
        result,
        cuts.map(([lo, hi]) => hi - lo),
      ),
    )
    bytes += 4 * (send.length - sent[rank] + (size - 1) * width)
    const now = performance.now()
    seconds += (now - begun) / 1000
    whole += (now - started) / 1000
    sums++
    return result
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
    sum: (count, leaf) => reduce(count, (span) => sumOf(span, leaf)),
    reduce,
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
