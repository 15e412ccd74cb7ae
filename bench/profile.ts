import * as E from 'fp-ts/lib/Either.js'
import type { Backend } from '../src/backend/backend.ts'
import { raise } from '../src/core/error.ts'
import { LoopMode, Micro, Opcode } from '../src/core/lowering.ts'
import * as S from '../src/core/shape.ts'
import type { Plan } from '../src/tape/plan.ts'

/** One instruction of a plan, timed alone. */
export interface Instruction {
  readonly text: string
  /** Estimated scalar multiply-adds. */
  readonly work: number
  readonly milliseconds: number
}

const describe = (c: Int32Array): string => {
  const name = Opcode[c[0]]
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

/** Times each instruction of a plan on its own (median of `repeats`), with zeros for arguments; slowest first. */
export const profile =
  (backend: Backend, repeats = 5) =>
  async (plan: Plan): Promise<readonly Instruction[]> => {
    const args = [...plan.inputs, ...plan.outputs].map((s) => backend.alloc(Math.max(1, S.size(s))))
    const result: Instruction[] = []
    for (let at = 0; plan.code[at] !== Opcode.halt; at += plan.code[at + 1]) {
      const one = plan.code.subarray(at, at + plan.code[at + 1])
      const compiled = await backend.compile({ ...plan, code: Int32Array.of(...one, Opcode.halt, 3, 0) })()
      if (E.isLeft(compiled)) return raise(compiled.left)
      const times: number[] = []
      for (let i = 0; i <= repeats; i++) {
        const begun = performance.now()
        backend.run(compiled.right, args)
        await backend.sync()
        if (i > 0) times.push(performance.now() - begun)
      }
      backend.release(compiled.right)
      times.sort((a, b) => a - b)
      result.push({ text: describe(one), work: one[2], milliseconds: times[times.length >> 1] })
    }
    for (const b of args) backend.free(b)
    return result.sort((a, b) => b.milliseconds - a.milliseconds)
  }
