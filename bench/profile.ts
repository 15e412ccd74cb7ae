import * as E from 'fp-ts/lib/Either.js'
import type { Backend, Buffer, Executable } from '../src/compile/backend.ts'
import type { Plan } from '../src/compile/plan.ts'
import { raise } from '../src/core/error.ts'
import { LoopMode, Micro, Opcode } from '../src/core/lowering.ts'
import { median } from './statistics.ts'

/** One instruction of a plan, timed alone. */
export interface Instruction {
  readonly text: string
  readonly opcode: Opcode
  /** Part of a sum over rounds: what follows is of one round, of which a run takes as many as its values say. */
  readonly inRound: boolean
  /** Estimated scalar multiply-adds. */
  readonly work: number
  /** Bytes that it has to read or write at least once. */
  readonly bytes: number
  readonly milliseconds: number
}

/** The instructions that a `loops` consists of. */
const members = (c: Int32Array): readonly Int32Array[] => {
  const all: Int32Array[] = []
  for (let at = 3; at < c.length; at += c[at + 1]) all.push(c.subarray(at, at + c[at + 1]))
  return all
}

const describe = (c: Int32Array): string => {
  const name = Opcode[c[0]]
  if (c[0] === Opcode.loops) return members(c).map(describe).join(' | ')
  if (c[0] !== Opcode.loop) return `${name}(${[...c.subarray(3)].join(',')})`
  const [, , , d, mode, , , nIn, nOps] = c
  const dims = [...c.subarray(12, 12 + d)]
  const inputs = Array.from({ length: nIn }, (_, k) => {
    const at = 12 + 2 * d + k * (2 + d)
    return `[${[...c.subarray(at + 2, at + 2 + d)].join(',')}]`
  })
  const ops = Array.from({ length: nOps }, (_, k) => Micro[c[12 + 2 * d + nIn * (2 + d) + k * 5]])
  return `${name} ${LoopMode[mode]} ${dims.join('x')} ${inputs.join(' ')} ${ops.join(' ') || 'copy'}`
}

const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1)

/** Elements that the operands of an instruction have, each counted once. */
const elements = (c: Int32Array, plan: Plan): number => {
  const lengths = (slots: readonly number[]) => slots.reduce((n, s) => n + plan.slots[s].length, 0)
  switch (c[0] as Opcode) {
    case Opcode.loop: {
      const [, , , d, , , , nIn, nOps] = c
      const dims = [...c.subarray(12, 12 + d)]
      const walked = (at: number) => product(dims.filter((_, i) => c[at + i] !== 0))
      const inputs = Array.from({ length: nIn }, (_, k) => walked(14 + 2 * d + k * (2 + d)))
      const stored = (c.length - (12 + 2 * d + nIn * (2 + d) + nOps * 5)) / 2
      return inputs.reduce((n, x) => n + x, (1 + stored) * walked(12 + d))
    }
    case Opcode.loops:
      return members(c).reduce((n, m) => n + elements(m, plan), 0)
    case Opcode.fill:
      return c[5]
    case Opcode.scatterInto:
      return c[6] * (1 + 2 * c[8])
    case Opcode.matmul:
    case Opcode.conv2d:
    case Opcode.conv2dInput:
    case Opcode.conv2dWeight:
    case Opcode.groupConv2d:
    case Opcode.groupConv2dInput:
    case Opcode.groupConv2dWeight:
    case Opcode.gather:
    case Opcode.scatterAdd:
      return lengths([c[3], c[4], c[5]])
    default:
      return lengths([c[3], c[4]])
  }
}

/**
 * Milliseconds on a clock that other processes do not move: the CPU time of this one while a single thread computes, the wall
 * otherwise.
 */
export const now = (backend: Backend): number => {
  if (backend.threads > 1 || backend.name === 'webgpu') return performance.now()
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e3
}

/**
 * Times each instruction of a plan on its own, in the order of the plan and with the arguments of a run, so that it meets the values that
 * it meets there (kernels leave out what is 0, and work in place). Of a sum over rounds the first round is timed, then all are run.
 * Medians over `repeats` times through the plan, slowest first.
 */
export const profile =
  (backend: Backend, repeats = 5) =>
  async (plan: Plan, args: readonly Buffer[]): Promise<readonly Instruction[]> => {
    const executable = async (...code: readonly number[]): Promise<Executable> => {
      const compiled = await backend.compile({ ...plan, code: Int32Array.of(...code, Opcode.halt, 3, 0) })()
      return E.isLeft(compiled) ? raise(compiled.left) : compiled.right
    }
    const steps: {
      readonly run: Executable
      readonly of?: Omit<Instruction, 'milliseconds'>
      readonly times: number[]
    }[] = []
    let rounds: readonly number[] | undefined
    for (let at = 0; plan.code[at] !== Opcode.halt; at += plan.code[at + 1]) {
      const one = [...plan.code.subarray(at, at + plan.code[at + 1])]
      if (rounds !== undefined) rounds = [...rounds, ...one]
      if (one[0] === Opcode.repeat) {
        rounds = one
        // The number of the round.
        steps.push({ run: await executable(Opcode.fill, 7, 0, one[6], 0, 1, 0), times: [] })
      } else if (one[0] === Opcode.end && rounds !== undefined) {
        steps.push({ run: await executable(...rounds), times: [] })
        rounds = undefined
      } else {
        const words = Int32Array.from(one)
        const of = {
          text: describe(words),
          opcode: one[0],
          inRound: rounds !== undefined,
          work: one[2],
          bytes: 4 * elements(words, plan),
        }
        steps.push({ run: await executable(...one), of, times: [] })
      }
    }
    for (let i = 0; i <= repeats; i++)
      for (const { run, times } of steps) {
        const begun = now(backend)
        backend.run(run, args)
        await backend.sync()
        if (i > 0) times.push(now(backend) - begun)
      }
    for (const { run } of steps) backend.release(run)
    return steps
      .flatMap(({ of, times }) => (of === undefined ? [] : [{ ...of, milliseconds: median(times) }]))
      .sort((a, b) => b.milliseconds - a.milliseconds)
  }
