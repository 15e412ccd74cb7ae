import {
  closeSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { hostname } from 'node:os'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { reasonOf } from '../data/files.ts'

/**
 * A lock is a file that names its process so well that anyone can tell whether it still lives: there is nothing to clean up after a process that
 * was killed. It appears with its whole content (a link to a finished file), so that it is never seen half-written.
 */
interface Holder {
  /** Of this lock alone. */
  readonly id: string
  readonly pid: number
  /** When the process began, as the kernel counts: another process of the same number began later. Empty where there is no /proc. */
  readonly started: string
  /** Where a process number means anything: this boot of this machine, and this container. */
  readonly space: string
  readonly host: string
  readonly since: string
}

/** A lock that is held. */
export interface Lock {
  /** Gives it up; a second time is nothing. */
  readonly release: () => void
}

/** How often a holder says that it lives, and after which silence one that nobody here can look up is taken for dead, ms. */
const [BEAT, SILENCE] = [20_000, 600_000]

const codeOf = (cause: unknown): string => String((cause as { readonly code?: unknown }).code)

const attempted = <A>(run: () => A, ...codes: readonly string[]): A | undefined => {
  try {
    return run()
  } catch (cause) {
    if (codes.length === 0 || codes.includes(codeOf(cause))) return undefined
    throw cause
  }
}

/** State and start of a process, as proc(5) has them (fields 3 and 22); the name before them may hold anything but ends with a parenthesis. */
const processOf = (pid: number): { readonly state: string; readonly started: string } | undefined => {
  const fields = attempted(() => readFileSync(`/proc/${pid}/stat`, 'latin1'))
    ?.replace(/^.*\)\s/s, '')
    .split(' ')
  return fields && { state: fields[0], started: fields[19] }
}

const self = (): Holder => ({
  id: crypto.randomUUID(),
  pid: process.pid,
  started: processOf(process.pid)?.started ?? '',
  space: [
    attempted(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()) ?? hostname(),
    attempted(() => readlinkSync('/proc/self/ns/pid')) ?? '',
  ].join(' '),
  host: hostname(),
  since: new Date().toISOString().slice(0, 19),
})

/** The holder of a lock; undefined where there is none. One that cannot be read is nobody's, and lives as long as its file is young. */
const holderOf = (path: string): Holder | undefined => {
  const text = attempted(() => readFileSync(path, 'utf8'), 'ENOENT')
  if (text === undefined) return undefined
  const nobody: Holder = { id: 'unreadable', pid: 0, started: '', space: '', host: '?', since: '?' }
  const parsed: unknown = attempted(() => JSON.parse(text))
  if (typeof parsed !== 'object' || parsed === null) return nobody
  const holder = { ...nobody, ...parsed }
  return /^[0-9a-f-]{36}$/.test(holder.id) && Number.isInteger(holder.pid) ? holder : nobody
}

/** Whether the holder of the lock at `path` still lives; `now` is the time of the file system that the lock is on. */
const lives = (holder: Holder, mine: Holder, path: string, now: number): boolean => {
  if (holder.space !== mine.space) {
    const beat = attempted(() => statSync(path).mtimeMs, 'ENOENT')
    return beat !== undefined && now - beat < SILENCE
  }
  if (mine.started === '') return attempted(() => process.kill(holder.pid, 0), 'ESRCH') !== undefined
  const found = processOf(holder.pid)
  return found !== undefined && found.started === holder.started && !/[ZXx]/.test(found.state)
}

/** Makes a file of its own with this holder; `use` gives it its name. */
const presented = <A>(path: string, holder: Holder, use: (temporary: string, now: number) => A): A => {
  const temporary = `${path}.${crypto.randomUUID()}.tmp`
  try {
    const file = openSync(temporary, 'wx')
    let now: number
    try {
      writeSync(file, JSON.stringify(holder))
      fsyncSync(file)
      now = fstatSync(file).mtimeMs
    } finally {
      closeSync(file)
    }
    return use(temporary, now)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/**
 * Takes the lock at `path`: undefined, or who has it. A dead holder's lock is replaced by whoever holds the lock *of that lock*, named after it: only
 * one process can replace it, and only while it is still there. That lock is one of the same kind, so that it may be left by a dead process, too.
 */
const acquire = (path: string, mine: Holder): Holder | undefined => {
  for (;;) {
    const found = presented(path, mine, (temporary, now) => {
      // Whoever holds the lock may tidy the file away: then this is tried again.
      if (attempted(() => linkSync(temporary, path) ?? true, 'EEXIST', 'ENOENT') === true) return undefined
      const holder = holderOf(path)
      return { holder, living: holder !== undefined && lives(holder, mine, path, now) }
    })
    if (found === undefined) return undefined
    const { holder, living } = found
    if (holder === undefined) continue
    if (living) return holder
    const replacing = `${path}.${holder.id}`
    const other = acquire(replacing, mine)
    if (other !== undefined) return other
    try {
      if (holderOf(path)?.id !== holder.id) continue
      presented(path, mine, (temporary) => renameSync(temporary, path))
      return undefined
    } finally {
      rmSync(replacing, { force: true })
    }
  }
}

const refusal = (path: string, folder: string, { pid, host, space, since }: Holder, mine: Holder): MixtrainError =>
  fileError(
    folder,
    space === mine.space
      ? `another run is writing to this folder (process ${pid}, since ${since} UTC); wait for it, or choose another folder`
      : `another run is writing to this folder (process ${pid} of ${host}, since ${since} UTC); if it is gone, remove ${path}`,
  )

/**
 * Takes the lock at `path`, for `folder`, which exists. It is given up by `release`, at the latest when the process ends, however it ends: what a
 * killed process leaves is seen to be dead. The holder of a lock on another machine (a shared disk) is alive as long as it says so by the time of
 * the file. Left: another process holds it, or no file can be made there.
 */
export const lock = (path: string, folder: string): E.Either<MixtrainError, Lock> => {
  const mine = self()
  try {
    const other = acquire(path, mine)
    if (other !== undefined) return E.left(refusal(path, folder, other, mine))
  } catch (cause) {
    return E.left(fileError(path, reasonOf(cause)))
  }
  const beat = setInterval(() => attempted(() => utimesSync(path, new Date(), new Date())), BEAT)
  beat.unref()
  const release = () => {
    clearInterval(beat)
    process.off('exit', release)
    if (attempted(() => holderOf(path))?.id === mine.id) attempted(() => rmSync(path, { force: true }))
  }
  process.on('exit', release)
  return E.right({ release })
}
