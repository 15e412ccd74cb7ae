import { benchmarkCommand } from './benchmark.ts'
import { boundsCommand } from './bounds.ts'
import { checkCommand } from './check.ts'
import { type Defined, define } from './command.ts'
import { completionOf } from './completion.ts'
import { dataCommand } from './data.ts'
import { devicesCommand } from './devices.ts'
import { evaluateCommand } from './evaluate.ts'
import { mergeCommand } from './merge.ts'
import { radiusCommand } from './radius.ts'
import { reportCommand } from './report-command.ts'
import { supportsCommand } from './supports.ts'
import { trainCommand } from './train.ts'
import { verifyCommand } from './verify.ts'

/** All commands, in the order of the help: what docs/command-line.md is made of, and what main adds to the program. */
export const commands: readonly Defined[] = [
  define(trainCommand),
  define(evaluateCommand),
  define(mergeCommand),
  define(reportCommand),
  define(boundsCommand),
  define(radiusCommand),
  define(verifyCommand),
  define(benchmarkCommand),
  define(supportsCommand),
  define(checkCommand),
  define(dataCommand),
  define(devicesCommand),
  define(completionOf(() => commands)),
]
