import { Option as CommanderOption, type Command as Program } from 'commander'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { MixtrainError } from '../core/error.ts'
import { files } from '../data/files.ts'
import { common, configured, type Options, readOptions, type Values } from './options.ts'
import type { Shell } from './shell.ts'

/** A command: what its help says, what it takes, what it does. */
export interface Command<O extends Options, A extends string> {
  readonly name: string
  readonly summary: string
  readonly description: string
  /** Arguments, and what they are. */
  readonly takes: Readonly<Record<A, string>>
  /** Those that may be left out, at the end; they are empty then. */
  readonly optional?: readonly A[]
  /** Whether more of the last argument may follow, which `run` gets as `more`. */
  readonly rest?: boolean
  readonly options: O
  readonly examples: readonly string[]
  readonly run: (
    args: Readonly<Record<A, string>>,
    options: Values<O & typeof common>,
    shell: Shell,
    more: readonly string[],
  ) => TE.TaskEither<MixtrainError, void>
}

/** What happens once the command line has been understood. */
export type Outcome = TE.TaskEither<MixtrainError, void>

/** A command without the types of its options and arguments: all that a list of commands is read for. */
export interface Defined {
  readonly command: Omit<Command<Options, string>, 'run'>
  /** Adds the command to the program; `decide` is told what its call comes to. */
  readonly add: (program: Program, shell: Shell, decide: (outcome: Outcome) => void) => void
}

export const define = <O extends Options, A extends string>(command: Command<O, A>): Defined => ({
  command,
  add: (program, shell, decide) => {
    const options = { ...command.options, ...common }
    const names = Object.keys(command.takes) as A[]
    const sub = program.command(command.name).summary(command.summary).description(command.description)
    for (const [i, name] of names.entries()) {
      const dots = command.rest === true && i === names.length - 1 ? '...' : ''
      const isOptional = command.optional?.includes(name) === true
      sub.argument(isOptional ? `[${name}${dots}]` : `<${name}${dots}>`, command.takes[name])
    }
    for (const option of Object.values(options)) {
      const made = new CommanderOption(option.flags, option.about)
      sub.addOption(
        'repeated' in option ? made.argParser((v: string, all: readonly string[] = []) => [...all, v]) : made,
      )
    }
    sub.addHelpText('after', `\nExamples:\n${command.examples.map((e) => `  $ ${e}`).join('\n')}`)
    sub.action((...given: unknown[]) => {
      const words = names.map((_, i): readonly unknown[] => [given[i] ?? ''].flat())
      const args = Object.fromEntries(names.map((name, i) => [name, String(words[i][0])])) as Record<A, string>
      const more = (words.at(-1) ?? []).slice(1).map(String)
      const said = sub.opts()
      const file = said.config as string | undefined
      decide(
        pipe(
          file === undefined
            ? TE.right(said)
            : pipe(
                files.read(file),
                TE.chainEitherK((bytes) => configured(options, file, new TextDecoder().decode(bytes))),
                TE.map((config) => ({ ...config, ...said })),
              ),
          TE.chainEitherK((raw) => readOptions(options, raw)),
          TE.chain((values) => command.run(args, values as Values<O & typeof common>, shell, more)),
        ),
      )
    })
  },
})
