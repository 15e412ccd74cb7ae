import { nodeModule } from '../core/runtime.ts'

/** mpirun by its names, and the daemons that it has on other hosts, of Open MPI 4 and 5. */
const LAUNCHERS = /^(mpirun|mpiexec|orterun|orted|prterun|prted)/

/** The nearest process above this one that is Open MPI's, as Linux has it in /proc; undefined where there is none, or no /proc. */
export const launcherProcess = async (): Promise<number | undefined> => {
  const { readFileSync } = await nodeModule<typeof import('node:fs')>('node:fs')
  const { ppid } = await nodeModule<typeof import('node:process')>('node:process')
  try {
    for (let pid = ppid; pid > 1; ) {
      // PID (NAME) STATE PARENT ...; a name may have spaces and parentheses.
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const end = stat.lastIndexOf(')')
      if (LAUNCHERS.test(stat.slice(stat.indexOf('(') + 1, end))) return pid
      pid = Number(stat.slice(end + 2).split(' ')[1])
    }
  } catch {}
  return undefined
}

/**
 * In a process of its own, as a launcher kills those that it started: after so many seconds, a launcher that is still there is killed. (Open MPI 4.1 crashes where it is interrupted twice, as it asks for.)
 * Its start time tells it from another process that got its number.
 */
const SCRIPT = `
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
own=$(started "$1")
sleep "$2"
[ -n "$own" ] && [ "$(started "$1")" = "$own" ] && kill -s KILL "$1"`

/** Ends a launcher that is still there in so many seconds: where a host cannot be reached, mpirun kills the processes of its own host and waits for the others for ever. */
export const endLauncher = async (pid: number, seconds: number): Promise<void> => {
  const { spawn } = await nodeModule<typeof import('node:child_process')>('node:child_process')
  const child = spawn('sh', ['-c', SCRIPT, 'sh', `${pid}`, `${seconds}`], { detached: true, stdio: 'ignore' })
  child.on('error', () => undefined)
  child.unref()
}
