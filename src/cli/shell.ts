import { writeSync } from 'node:fs'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type MixtrainError, MixtrainException, raise } from '../core/error.ts'
import { fileErrorOf, reasonOf } from '../data/files.ts'
import { barOf, type Pace, paced } from './progress.ts'

/** The signals that ask the program to stop, by their numbers. */
const SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 } as const
type Signal = keyof typeof SIGNALS

/** The exit code of a program that a signal ended, as shells have it. */
export const exitCodeOf = (signal: Signal): number => 128 + SIGNALS[signal]

/** The program was asked to stop; `message` says what became of its work. */
export class Interrupted extends Error {
  constructor(
    readonly signal: Signal,
    message = 'interrupted',
  ) {
    super(message)
  }
}

/** Standard output and standard error, as the program uses them. */
export interface Shell {
  /** When the process was started, on the clock of `performance.now`, ms: limits of time count from there. */
  readonly begun: number
  /** Results: standard output. */
  readonly print: (text: string) => void
  /** What happens meanwhile: standard error. */
  readonly note: (text: string) => void
  /**
   * Shows how far something is on a terminal, and lets other events through; `whole` is how far all of it is, if this is a part, and what the time that is left is told
   * of. @throws Interrupted after Ctrl-C, SIGTERM or SIGHUP.
   */
  readonly progress: (
    label: string,
    done: number,
    total: number,
    whole?: { readonly done: number; readonly total: number },
  ) => Promise<void>
  /** Takes the progress bar away. */
  readonly clear: () => void
  /** Within `run`, a signal is told at the next progress; a second one, or one outside, ends the process at once. */
  readonly interruptible: <A>(run: () => Promise<A>) => Promise<A>
}

/** How long the event loop may be kept waiting, and a bar be left as it is, ms. */
const PATIENCE = 40
const REDRAW = 100

/** Whether a stream shows what can be drawn again: a terminal that knows how to erase a line. */
export const isTerminal = (stream: NodeJS.WriteStream): boolean => stream.isTTY === true && process.env.TERM !== 'dumb'

/** The shell of this process. */
export const openShell = (): Shell => {
  let asked: Signal | undefined
  let patient = false
  let last = 0
  let pace: Pace | undefined
  let drawn = 0
  const clear = () => {
    if (drawn > 0) process.stderr.write('\r\x1b[2K\x1b[?25h')
    drawn = 0
  }
  // Whoever ends the process ends it by `exit`, so that what it holds or has half written goes with it.
  for (const signal of Object.keys(SIGNALS) as Signal[])
    process.on(signal, () => {
      if (patient && asked === undefined) {
        asked = signal
        return
      }
      clear()
      process.exit(exitCodeOf(signal))
    })
  const unwritten = (e: NodeJS.ErrnoException) => {
    if (asked !== undefined) process.exit(exitCodeOf(asked))
    // A reader that has gone away (`| head`) wants no more.
    if (e.code === 'EPIPE') process.exit(0)
    clear()
    try {
      writeSync(2, `mixtrain: standard output: ${reasonOf(e)}\n`)
    } finally {
      process.exit(1)
    }
  }
  process.stdout.on('error', unwritten)
  // What happens meanwhile may go unread: the work goes on.
  const unread = () => undefined
  process.stderr.on('error', unread)
  /** Node tells an error of a stream by its event, Deno raises that of a file at once. */
  const put = (stream: NodeJS.WriteStream, text: string, failed: (e: NodeJS.ErrnoException) => void): void => {
    try {
      stream.write(`${text}\n`)
    } catch (cause) {
      if (!(cause instanceof Error && 'code' in cause)) throw cause
      failed(cause as NodeJS.ErrnoException)
    }
  }
  return {
    // That clock begins with the process, before anything is loaded.
    begun: 0,
    print: (text) => put(process.stdout, text, unwritten),
    note: (text) => put(process.stderr, text, unread),
    progress: async (label, done, total, whole) => {
      if (isTerminal(process.stderr)) {
        const now = performance.now()
        pace = paced(pace, whole === undefined ? label : '', (whole ?? { done }).done, now)
        if (drawn === 0 || done === total || now - drawn > REDRAW) {
          const line = barOf({ label, done, total, whole, pace, now, columns: process.stderr.columns })
          process.stderr.write(`${drawn === 0 ? '\x1b[?25l' : ''}\r\x1b[2K${line}`)
          drawn = now
        }
      }
      if (performance.now() - last > PATIENCE) {
        await new Promise((resolve) => setImmediate(resolve))
        last = performance.now()
      }
      if (asked !== undefined) throw new Interrupted(asked)
    },
    clear,
    interruptible: async (run) => {
      patient = true
      try {
        return await run()
      } finally {
        clear()
        patient = false
      }
    },
  }
}

/** The value of a task; its error is raised. */
export const get = async <A>(task: TaskEither<MixtrainError, A>): Promise<A> => {
  const result = await task()
  return E.isLeft(result) ? raise(result.left) : result.right
}

/** A task from a function that raises its errors, or those of files; other exceptions are defects and pass. */
export const attempt =
  <A>(run: () => Promise<A>): TaskEither<MixtrainError, A> =>
  async () => {
    try {
      return E.right(await run())
    } catch (cause) {
      if (cause instanceof MixtrainException) return E.left(cause.error)
      const error = fileErrorOf(cause)
      if (error === undefined) throw cause
      return E.left(error)
    }
  }

/** Runs `use`, then `release`, however `use` ends. */
export const using = <A, B>(
  open: TE.TaskEither<MixtrainError, A>,
  use: (a: A) => TE.TaskEither<MixtrainError, B>,
  release: (a: A) => void,
): TE.TaskEither<MixtrainError, B> =>
  TE.Monad.chain(open, (a) => async () => {
    try {
      return await use(a)()
    } finally {
      release(a)
    }
  })
