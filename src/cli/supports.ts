import * as TE from 'fp-ts/lib/TaskEither.js'
import { usage } from '../core/error.ts'
import { OPSETS } from '../format/onnx/index.ts'
import { IMPORTS } from '../format/onnx/ops.ts'
import type { Command } from './command.ts'

/** What the VNN-LIB standard asks of a solver (chapter 5), one answer a line. */
const capabilities = {
  onnxOpsetVersions: ['the least and the greatest opset', () => OPSETS.map(String)],
  onnxElementTypes: ['element types that bounds are sound for', () => ['float32', 'real']],
  onnxOperators: ['ops that are read', () => Object.keys(IMPORTS).sort()],
  vnnlibVersions: ['the least and the greatest version of VNN-LIB', () => ['1.0', '2.0']],
  hiddenNodeTheories: ['constraints on hidden nodes', () => ['NH', 'H']],
  multipleInputOutputTheories: ['networks of several inputs or outputs', () => ['SIO']],
  multipleNetworkTheories: ['several networks', () => ['SNET', 'MENET', 'MINET', 'MNET']],
  multipleNodeComparisonTheories: ['constraints on several nodes at once', () => ['SNC', 'MNC']],
  arithmeticComplexityTheories: ['arithmetic of constraints', () => ['BND', 'OUTC', 'LIN']],
  optimisedDisjunctiveReasoning: ['whether disjunctions are more than their normal form', () => ['false']],
  serialiseAssignments: ['whether verify takes --serialise-assignments', () => ['true']],
} as const satisfies Readonly<Record<string, readonly [about: string, answer: () => readonly string[]]>>

type Capability = keyof typeof capabilities

const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`
const names = Object.keys(capabilities) as readonly Capability[]
const options = Object.fromEntries(
  names.map((name) => [name, { flags: flagOf(name), about: capabilities[name][0] }]),
) as Readonly<Record<Capability, { readonly flags: string; readonly about: string }>>

/** `mixtrain supports`: tells other tools what `verify` can be asked. */
export const supportsCommand: Command<typeof options, never> = {
  name: 'supports',
  summary: 'tell what verify can be asked, as the VNN-LIB standard has it',
  description:
    'Prints one capability, an answer a line: the interface of the VNN-LIB standard by which other tools ask a solver what it is able to do.',
  takes: {},
  options,
  examples: ['mixtrain supports --onnx-operators', 'mixtrain supports --vnnlib-versions'],
  run: (_, o, shell) => {
    const asked = names.filter((name) => o[name])
    if (asked.length !== 1) return TE.left(usage(`supports takes one capability: ${names.map(flagOf).join(', ')}`))
    for (const line of capabilities[asked[0]][1]()) shell.print(line)
    return TE.right(undefined)
  },
}
