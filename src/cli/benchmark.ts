import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { append, files } from '../data/files.ts'
import { drawCactus } from './cactus.ts'
import type { Command } from './command.ts'
import {
  decodeInstances,
  decodeOutcomes,
  encodeOutcome,
  type Instance,
  isWrong,
  nameOf,
  type Outcome,
  outcomeHeader,
  talliesOf,
} from './instances.ts'
import { integer, positive, replayOption, roundingOption, semanticsOption, shard, text } from './options.ts'
import { json } from './report.ts'
import { attempt, get, type Shell } from './shell.ts'
import { talliesTable } from './tallies.ts'

const TIMEOUT = 300
/** What a process may take beyond its limit before it is killed: start-up, reading, and a share of the limit. */
const [SLACK, SHARE] = [60, 0.2]
/** How often a waiting call looks for Ctrl-C, ms. */
const LOOK = 100

const options = {
  timeout: {
    flags: '--timeout <S>',
    about: `the most seconds of an instance (default: the list's, else ${TIMEOUT})`,
    read: positive,
  },
  shard: { flags: '--shard <I/N>', about: 'only every Nth instance, from the Ith on (default: 1/1)', read: shard },
  output: {
    flags: '--output <CSV>',
    about: 'the table of outcomes, a line as each instance ends (default: results.csv)',
    read: text,
  },
  resume: { flags: '--resume', about: 'goes on with a table that an earlier call began' },
  plot: { flags: '--plot <SVG>', about: 'a picture of how many were decided within so many seconds', read: text },
  seed: { flags: '--seed <N>', about: 'of the attacks (default: 0)', read: integer },
  rounding: { ...roundingOption, about: roundingOption.about.replace('default: none', 'default: outward') },
  semantics: semanticsOption,
  replay: replayOption,
}

type Given = Parameters<NonNullable<Command<typeof options, 'LIST'>['run']>>[1]

/** The file, or the same gzipped where only that is there. */
const found = (path: string): string => (!existsSync(path) && existsSync(`${path}.gz`) ? `${path}.gz` : path)

/** The runtime and its own arguments, up to this program's script. */
const runtime = (): readonly string[] => [
  process.execPath,
  ...('Deno' in globalThis ? ['run', '-A', '--node-modules-dir=manual'] : process.execArgv),
  fileURLToPath(new URL('./main.js', import.meta.url)),
]

interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly out: string
  readonly err: string
}

/** Runs a process to its end, or kills it after so many seconds or on Ctrl-C. */
const ran = async (argv: readonly string[], seconds: number, alive: () => Promise<void>): Promise<Ended> => {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    out += part
  })
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    err += part
  })
  const ended = new Promise<Ended>((resolve) => {
    child.on('error', (e) => resolve({ code: null, signal: null, out, err: e.message }))
    child.on('close', (code, signal) => resolve({ code, signal, out, err }))
  })
  const kill = setTimeout(() => child.kill('SIGKILL'), 1000 * seconds)
  try {
    for (;;) {
      let wake: ReturnType<typeof setTimeout> | undefined
      const result = await Promise.race([
        ended,
        new Promise<undefined>((resolve) => {
          wake = setTimeout(() => resolve(undefined), LOOK)
        }),
      ])
      clearTimeout(wake)
      if (result !== undefined) return result
      await alive()
    }
  } finally {
    clearTimeout(kill)
    child.kill('SIGKILL')
  }
}

/** What `verify --json` says, as far as it is needed. */
interface Answer {
  readonly verdict: string
  readonly subproblems: number
  readonly reason: string | null
  readonly cpu: number | null
  readonly peak: number | null
}

const answerOf = (out: string): Answer | undefined => {
  try {
    return JSON.parse(out) as Answer
  } catch {
    return undefined
  }
}

/** An instance in a process of its own: whatever becomes of that, this call goes on. */
const decided = async (folder: string, instance: Instance, o: Given, alive: () => Promise<void>): Promise<Outcome> => {
  const limit = Math.min(o.timeout ?? Number.POSITIVE_INFINITY, instance.timeout ?? o.timeout ?? TIMEOUT)
  const path = (name: string) => found(join(folder, instance.family, name))
  const given: readonly (readonly [string, string | number | undefined])[] = [
    ['--timeout', limit],
    ['--seed', o.seed],
    ['--threads', o.threads],
    ['--memory', o.memory],
    ['--device', o.device],
    ['--rounding', o.rounding],
    ['--semantics', o.semantics],
    ['--replay', o.replay],
  ]
  const flags = given.flatMap(([flag, value]) => (value === undefined ? [] : [flag, String(value)]))
  const argv = [...runtime(), 'verify', path(instance.onnx), path(instance.vnnlib), '--json', ...flags]
  const begun = performance.now()
  const { code, signal, out, err } = await ran(argv, limit * (1 + SHARE) + SLACK, alive)
  const seconds = (performance.now() - begun) / 1000
  const common = { ...instance, limit, seconds }
  const answer = code === 0 ? answerOf(out) : undefined
  if (answer !== undefined)
    return {
      ...common,
      verdict: answer.verdict,
      cpu: answer.cpu ?? undefined,
      memory: answer.peak ?? undefined,
      subproblems: answer.subproblems,
      reason: answer.reason ?? '',
    }
  const said = err.trim().split('\n').at(-1) ?? ''
  const failed = { ...common, cpu: undefined, memory: undefined, subproblems: undefined }
  return code === 1 || code === 2
    ? { ...failed, verdict: 'error', reason: said }
    : { ...failed, verdict: 'crash', reason: signal === null ? `exit code ${code}: ${said}` : `ended by ${signal}` }
}

/** The table of an earlier call, or a new one. */
const begunTable = (path: string, resume: boolean): TE.TaskEither<MixtrainError, readonly Outcome[]> =>
  existsSync(path)
    ? resume
      ? pipe(
          files.read(path),
          TE.chainEitherK((bytes) => decodeOutcomes(new TextDecoder().decode(bytes), path)),
          TE.chain(({ outcomes, whole }) =>
            pipe(
              files.write(path, new TextEncoder().encode(whole === '' ? outcomeHeader : whole)),
              TE.map(() => outcomes),
            ),
          ),
        )
      : TE.left(fileError(path, 'it is there already: add --resume to go on with it, or name another by --output'))
    : pipe(
        files.write(path, new TextEncoder().encode(outcomeHeader)),
        TE.map(() => []),
      )

const shown = (o: Outcome): string =>
  [
    isWrong(o) ? `WRONG ${o.verdict}, known to be ${o.expected}` : o.verdict.padEnd(8),
    `${o.seconds.toFixed(1)} s`.padStart(8),
    `${o.family === '' ? '' : `${o.family}/`}${o.onnx} ${o.vnnlib}`,
    ...(o.reason === '' ? [] : [`(${o.reason})`]),
  ].join('  ')

const bench = async (list: string, o: Given, shell: Shell): Promise<void> => {
  const text = new TextDecoder().decode(await get(files.read(list)))
  const all = await get(TE.fromEither(decodeInstances(text, list)))
  const { index, of } = o.shard ?? { index: 1, of: 1 }
  const own = all.filter((_, i) => i % of === index - 1)
  const path = o.output ?? 'results.csv'
  const known = await get(begunTable(path, o.resume))
  const names = new Set(known.map(nameOf))
  const outcomes = [...known]
  const rest = own.filter((i) => !names.has(nameOf(i)))
  for (const [i, instance] of rest.entries()) {
    const alive = () => shell.progress('instances', own.length - rest.length + i, own.length)
    await alive()
    const outcome = await decided(dirname(list), instance, o, alive)
    await get(append(path, new TextEncoder().encode(encodeOutcome(outcome))))
    outcomes.push(outcome)
    shell.clear()
    if (o.json) shell.note(shown(outcome))
    else shell.print(shown(outcome))
  }
  shell.clear()
  const tallies = talliesOf(outcomes)
  shell.print(
    o.json
      ? json({ list, output: path, tallies, outcomes: outcomes.map(({ timeout: _, ...rest }) => rest) })
      : talliesTable(tallies),
  )
  if (o.plot !== undefined) await get(files.write(o.plot, new TextEncoder().encode(drawCactus(outcomes))))
  const wrong = outcomes.filter(isWrong)
  if (wrong.length > 0)
    await get(
      TE.left(
        fileError(
          path,
          `${wrong.length} verdict${wrong.length === 1 ? ' contradicts' : 's contradict'} what is known, ${wrong[0].onnx} ${wrong[0].vnnlib} first`,
        ),
      ),
    )
}

/** `mixtrain benchmark`: decides the instances of a list. */
export const benchmarkCommand: Command<typeof options, 'LIST'> = {
  name: 'benchmark',
  summary: 'decide the instances of a list, each in a process of its own',
  description:
    'Runs verify on each instance of a list and writes a table that grows: verdict, seconds, CPU seconds, peak memory, subproblems. A line of the list is ONNX,VNNLIB[,TIMEOUT] as in VNN-COMP, or the first line names the columns: onnx, vnnlib and, if there, family (a folder), timeout and verdict. Paths are relative to the list; files may be gzipped. Each instance is a process: one that crashes, or is killed because it does not answer, loses that instance only. Exit code 1 if a verdict contradicts the known one.',
  takes: { LIST: 'a CSV file' },
  options,
  examples: [
    'mixtrain benchmark instances.csv --timeout 60 --threads 2 --output results.csv',
    'mixtrain benchmark instances.csv --shard 3/8 --output results-3.csv --resume',
  ],
  run: ({ LIST }, o, shell) => attempt(() => shell.interruptible(() => bench(LIST, o, shell))),
}
