import * as E from 'fp-ts/lib/Either.js'
import type { Backend, Buffer, Executable } from '../src/compile/backend.ts'
import type { Instruction, RepeatInstruction, View } from '../src/compile/instruction.ts'
import type { Plan } from '../src/compile/plan.ts'
import { raise } from '../src/core/error.ts'
import { LoopMode, Micro } from '../src/core/lowering.ts'
import { median } from './statistics.ts'

/** One instruction of a plan, timed alone. */
export interface Timed {
  readonly text: string
  readonly kind: Instruction['kind']
  /** Part of a sum over rounds: what follows is of one round, of which a run takes as many as its values say. */
  readonly inRound: boolean
  /** Estimated scalar multiply-adds. */
  readonly work: number
  /** Bytes that it has to read or write at least once. */
  readonly bytes: number
  readonly milliseconds: number
}

const describe = (i: Instruction): string => {
  if (i.kind === 'loops') return i.loops.map(describe).join(' | ')
  if (i.kind !== 'loop') {
    const { kind, work, ...fields } = i
    return `${kind}(${Object.entries(fields).flatMap(([name, value]) => (typeof value === 'number' ? `${name} ${value}` : []))})`
  }
  const inputs = i.inputs.map((v) => `[${v.strides.join(',')}]`)
  const ops = i.ops.map(({ micro }) => Micro[micro])
  return `loop ${LoopMode[i.mode]} ${i.dims.join('x')} ${inputs.join(' ')} ${ops.join(' ') || 'copy'}`
}

const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1)

/** Elements that the operands of an instruction have, each counted once. */
const elements = (i: Instruction, plan: Plan): number => {
  const lengths = (...slots: readonly number[]) => slots.reduce((n, s) => n + plan.slots[s].length, 0)
  switch (i.kind) {
    case 'loop': {
      const walked = ({ strides }: View) => product(i.dims.filter((_, d) => strides[d] !== 0))
      return i.inputs.reduce((n, v) => n + walked(v), (1 + i.stored.length) * walked(i.out))
    }
    case 'loops':
      return i.loops.reduce((n, l) => n + elements(l, plan), 0)
    case 'fill':
      return i.n
    case 'scatterInto':
      return i.n * (1 + 2 * i.d)
    case 'matmul':
      return lengths(i.a, i.b, i.out)
    case 'conv2d':
    case 'conv2dInput':
    case 'conv2dWeight':
      return lengths(i.x, i.w, i.y)
    case 'gather':
    case 'scatterAdd':
      return lengths(i.x, i.index, i.out)
    case 'argmax':
    case 'compact':
      return lengths(i.x, i.out)
    case 'unfold':
    case 'fold':
      return lengths(i.x, i.windows)
    case 'repeat':
      return 0
    default:
      return i satisfies never
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
  async (plan: Plan, args: readonly Buffer[]): Promise<readonly Timed[]> => {
    const executable = async (...instructions: readonly Instruction[]): Promise<Executable> => {
      const compiled = await backend.compile({ ...plan, instructions })()
      return E.isLeft(compiled) ? raise(compiled.left) : compiled.right
    }
    const steps: {
      readonly run: Executable
      readonly of?: Omit<Timed, 'milliseconds'>
      readonly times: number[]
    }[] = []
    const time = async (i: Exclude<Instruction, RepeatInstruction>, inRound: boolean): Promise<void> => {
      const of = { text: describe(i), kind: i.kind, inRound, work: i.work, bytes: 4 * elements(i, plan) }
      steps.push({ run: await executable(i), of, times: [] })
    }
    const repeat = async (i: RepeatInstruction): Promise<void> => {
      // The number of the round.
      const first = { kind: 'fill', work: 0, out: i.round, offset: 0, n: 1, value: 0 } as const
      steps.push({ run: await executable(first), times: [] })
      for (const inner of i.body) if (inner.kind !== 'repeat') await time(inner, true)
      steps.push({ run: await executable(i), times: [] })
    }
    for (const i of plan.instructions) await (i.kind === 'repeat' ? repeat(i) : time(i, false))
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
