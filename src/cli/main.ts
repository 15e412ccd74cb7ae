#!/usr/bin/env node
import process from 'node:process'
import { Command, CommanderError } from 'commander'
import * as E from 'fp-ts/lib/Either.js'
import { type MixtrainError, show, usage } from '../core/error.ts'
import { unknownName } from '../core/names.ts'
import { counted } from '../core/number.ts'
import type { Outcome } from './command.ts'
import { commands } from './commands.ts'
import { exitCodeOf, Interrupted, openShell, type Shell } from './shell.ts'
import { VERSION } from './version.ts'

const SUCCESS = 0
const FAILURE = 1
const USAGE = 2

const programOf = (shell: Shell, decide: (outcome: Outcome) => void): Command => {
  const program = new Command('mixtrain')
    .description(
      'Trains image classifiers that are provably robust within an l-inf ball, and measures how robust they are. The method is MixTrain (arXiv:1811.02625), on WebAssembly SIMD and in plain TypeScript.',
    )
    .version(VERSION)
    .option('--name', 'output the name of the program')
    .helpCommand(false)
    .exitOverride()
    .showSuggestionAfterError(false)
    .configureOutput({
      writeOut: (text) => shell.print(text.trimEnd()),
      writeErr: (text) => shell.note(text.trimEnd()),
      outputError: () => undefined,
    })
    .addHelpText(
      'after',
      '\nmixtrain help COMMAND tells more, with examples.\nExit code: 0 success, 1 failure, 2 wrong usage, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).',
    )
  for (const { add } of commands) add(program, shell, decide)
  return program
}

/** What commander found wrong, in our words. */
const explained = (error: CommanderError, program: Command, argv: readonly string[]): MixtrainError => {
  const command = program.commands.find((c) => c.name() === argv[0])
  const [, quoted = ''] = /'([^']*)'/.exec(error.message) ?? []
  switch (error.code) {
    case 'commander.unknownCommand':
      return usage(
        unknownName(
          'command',
          quoted,
          program.commands.map((c) => c.name()),
        ),
      )
    case 'commander.excessArguments': {
      const expected = command?.registeredArguments.length ?? 0
      const extra = command?.args.slice(expected).map((a) => JSON.stringify(a)) ?? []
      const takes = expected === 0 ? 'takes no arguments' : `takes ${counted(expected, 'argument')}`
      return usage(`${command?.name() ?? 'mixtrain'} ${takes}, but was given ${extra.join(', ')} besides`)
    }
    case 'commander.unknownOption': {
      const known = (command === undefined ? program.commands : [command]).flatMap((c) => c.options)
      const names = [...new Set([...known.map((o) => o.long ?? o.flags), '--help'])]
      if (names.includes(quoted)) return usage(`${quoted} is an option of commands: mixtrain COMMAND ${quoted}`)
      return usage(unknownName(command === undefined ? 'option' : `option of ${command.name()}`, quoted, names))
    }
    default:
      return usage(error.message.replace(/^error: /, ''))
  }
}

/** `help COMMAND` is `COMMAND --help`, and `help` alone the help of all. */
const helpful = (argv: readonly string[]): readonly string[] =>
  argv[0] !== 'help'
    ? argv
    : argv.length === 1
      ? ['--help']
      : commands.some(({ command }) => command.name === argv[1])
        ? [argv[1], '--help']
        : argv.slice(1, 2)

/** Says what went wrong: on standard error, and with `--json` as the one document on standard output. */
const fail = (error: { readonly kind: string; readonly message: string }, shell: Shell, asJson: boolean): void => {
  shell.note(error.kind === 'interrupted' ? error.message : `mixtrain: ${error.message}`)
  if (asJson) shell.print(JSON.stringify({ error: { kind: error.kind, message: error.message } }))
}

const refuse = (error: MixtrainError, shell: Shell, asJson: boolean): number => {
  fail({ kind: error.kind, message: show(error) }, shell, asJson)
  return error.kind === 'usage' ? USAGE : FAILURE
}

/** Runs a command line; the exit code. */
const run = async (argv: readonly string[], shell: Shell): Promise<number> => {
  const asJson = argv.includes('--json')
  if (argv.length === 1 && argv[0] === '--name') {
    shell.print('mixtrain')
    return SUCCESS
  }
  let outcome: Outcome | undefined
  const program = programOf(shell, (o) => {
    outcome = o
  })
  try {
    await program.parseAsync(helpful(argv), { from: 'user' })
    const result = await outcome?.()
    return result !== undefined && E.isLeft(result) ? refuse(result.left, shell, asJson) : SUCCESS
  } catch (cause) {
    shell.clear()
    if (cause instanceof Interrupted) {
      fail({ kind: 'interrupted', message: cause.message }, shell, asJson)
      return exitCodeOf(cause.signal)
    }
    if (cause instanceof CommanderError) {
      if (cause.exitCode === 0) return SUCCESS
      return cause.code === 'commander.help' ? USAGE : refuse(explained(cause, program, helpful(argv)), shell, asJson)
    }
    const message = `this is a defect of the program: ${cause instanceof Error ? cause.stack : cause}`
    fail({ kind: 'defect', message }, shell, asJson)
    return FAILURE
  }
}

process.exitCode = await run(process.argv.slice(2), openShell())
