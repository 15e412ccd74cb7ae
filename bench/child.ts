import { spawnSync } from 'node:child_process'

/** What a process printed, and the CPU seconds that it used, user and system. */
export interface Ran {
  readonly cpu: number
  readonly out: string
  readonly err: string
}

const secondsOf = (text: string): number => {
  const [minutes, rest] = text.split('m')
  return 60 * Number(minutes) + Number.parseFloat(rest) || 0
}

/** Runs a command, for so many seconds at most. What a child used is known to its parent's shell: `times` prints it. */
export const timed = (command: readonly string[], limit?: number): Ran => {
  const { stdout, stderr } = spawnSync('sh', ['-c', '"$@"; times', 'sh', ...command], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
    ...(limit === undefined ? {} : { timeout: 1000 * limit }),
  })
  const lines = stdout.trimEnd().split('\n')
  const cpu = (lines.at(-1) ?? '').split(' ').reduce((sum, text) => sum + secondsOf(text), 0)
  return { cpu, out: lines.slice(0, -2).join('\n'), err: stderr }
}
