// Tries the command line under schedulers, all on this machine:
//
//   npm run test:cluster [-- PATTERN]
//
// SLURM (Debian: slurm-wlm, munge) with two nodes that are two daemons here: a job array of shards, of which a node fails in the middle and its tasks are queued again on the other, and
// training by srun; GNU parallel (Debian: parallel) with a task that is killed and tried again. What each gives must be what one process gives. What is not
// installed is skipped, and said to be. Prints a line for each trial, and the sum.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../dist/src/cli/mixtrain.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'mixtrain-cluster-'))
const mixtrain = [process.execPath, main]
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const has = (command) => spawnSync('which', [command]).status === 0
const run = (argv, env = {}) =>
  execFileSync(argv[0], argv.slice(1), {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
const expect = (holds, message) => {
  if (!holds) throw new Error(message)
}
/** Waits until `ready` gives something. */
const until = async (what, seconds, ready) => {
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; await sleep(100)) {
    const found = await ready()
    if (found) return found
  }
  throw new Error(`${what} did not happen in ${seconds} s`)
}

const model = join(folder, 'run', 'model.safetensors')
const asked = [
  ...[
    'evaluate',
    model,
    '--epsilon',
    '0.05',
    '--limit',
    '240',
    '--device',
    'wasm',
    '--threads',
    '1',
    '--batch-size',
    '8',
  ],
  ...['--attack', 'pgd', '--steps', '100', '--restarts', '3'],
]
const FIELDS = ['count', 'epsilon', 'acc', 'era', 'vra', 'attack', 'method', 'rounding']
const shown = (text) => {
  const report = JSON.parse(text)
  return JSON.stringify(FIELDS.map((f) => report[f]))
}
const same = (records, whole) => {
  const merged = run([...mixtrain, 'merge', records, '--audit', '3', '--key', '1', '--json'])
  expect(shown(merged) === shown(whole), `merged: ${shown(merged)}\none run: ${shown(whole)}`)
}
const hashOf = (path) => createHash('sha256').update(readFileSync(path)).digest('hex')
const recordsOf = (path) => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 2 : 0)

// ---- SLURM ---------------------------------------------------------------------------------------------------------------

const NODES = ['n1', 'n2']

/** Processes with this in their environment. */
const processesWith = (entry) =>
  readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(entry)
    } catch {
      return false
    }
  })
const childrenOf = (pid) => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
const kill = (pid) => {
  try {
    process.kill(Number(pid), 'SIGKILL')
  } catch {
    // It is gone already.
  }
}

let clusters = 0

/** A cluster of two nodes, with a state and ports of its own: its environment, where each daemon's number is, and its end. */
const slurm = async () => {
  const number = clusters++
  const at = (name) => join(folder, `slurm-${number}`, name)
  for (const name of ['', 'state']) mkdirSync(at(name), { recursive: true })
  writeFileSync(at('munge.key'), randomBytes(1024), { mode: 0o400 })
  const host = hostname().split('.')[0]
  const port = 20_000 + 3 * (process.pid % 6_000) + 20_000 * (number % 2)
  const lines = {
    ClusterName: 'test',
    SlurmctldHost: host,
    SlurmUser: 'root',
    SlurmdUser: 'root',
    AuthType: 'auth/munge',
    AuthInfo: `socket=${at('munge.sock')}`,
    StateSaveLocation: at('state'),
    SlurmdSpoolDir: at('spool-%n'),
    SlurmctldPidFile: at('ctld.pid'),
    SlurmdPidFile: at('%n.pid'),
    SlurmctldLogFile: at('ctld.log'),
    SlurmdLogFile: at('%n.log'),
    SlurmctldPort: port,
    SlurmdTimeout: 10,
    ProctrackType: 'proctrack/pgid',
    TaskPlugin: 'task/none',
    SelectType: 'select/cons_tres',
    SelectTypeParameters: 'CR_CPU',
    ReturnToService: 2,
    JobRequeue: 1,
    MailProg: '/bin/true',
    SchedulerParameters: 'sched_interval=2',
    NodeName: `n[1-2] NodeHostname=${host} NodeAddr=127.0.0.1 Port=[${port + 1}-${port + 2}] CPUs=2 RealMemory=1000`,
    PartitionName: 'main Nodes=ALL Default=YES MaxTime=INFINITE State=UP',
  }
  writeFileSync(
    at('slurm.conf'),
    `${Object.entries(lines)
      .map(([k, v]) => `${k}=${v}`)
      .join('\n')}\n`,
  )
  const munge = [
    '--key-file',
    'munge.key',
    '--socket',
    'munge.sock',
    '--pid-file',
    'munge.pid',
    '--log-file',
    'munge.log',
  ]
  run(['munged', '--force', ...munge.map((x, i) => (i % 2 ? at(x) : x)), '--seed-file', at('munge.seed')])
  const env = { SLURM_CONF: at('slurm.conf') }
  run(['slurmctld', '-f', at('slurm.conf')], env)
  for (const node of NODES) run(['slurmd', '-f', at('slurm.conf'), '-N', node], env)
  const idOf = (name) => Number(readFileSync(at(`${name}.pid`), 'utf8'))
  await until('an idle cluster', 60, () => run(['sinfo', '-h', '-o', '%T %D'], env).trim() === 'idle 2')
  return {
    env,
    /** A node that loses its power: its daemon and all that it started. */
    fail: (node) => {
      const daemon = idOf(node)
      const steps = childrenOf(daemon)
      for (const pid of [daemon, ...steps, ...processesWith(`SLURMD_NODENAME=${node}`)]) kill(pid)
      // Steps are daemons of their own.
      for (const pid of readdirSync('/proc').filter((p) => /^\d+$/.test(p)))
        try {
          const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
          if (text.startsWith('slurmstepd') && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(at(''))) kill(pid)
        } catch {}
    },
    end: () => {
      for (const node of NODES) for (const pid of processesWith(`SLURMD_NODENAME=${node}`)) kill(pid)
      for (const name of [...NODES, 'ctld', 'munge']) if (existsSync(at(`${name}.pid`))) kill(idOf(name))
    },
  }
}

const underSlurm = async (whole) => {
  const { env, fail, end } = await slurm()
  try {
    const records = join(folder, 'array')
    const script = join(folder, 'shards.sbatch')
    const command = [
      ...mixtrain,
      ...asked,
      '--shard',
      '$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT',
      '--output',
      records,
    ]
    writeFileSync(
      script,
      `#!/bin/bash
#SBATCH --array=1-4 --requeue --open-mode=append --cpus-per-task=1
#SBATCH --output=${folder}/task-%a.log
echo "task $SLURM_ARRAY_TASK_ID on $SLURMD_NODENAME, restart \${SLURM_RESTART_COUNT:-0}"
${command.join(' ')} --json > /dev/null
`,
    )
    run(['sbatch', script], env)
    const of = (i) => join(records, `shard-${i}-of-4.jsonl`)
    // A node fails when one of its tasks is in the middle.
    const task = await until('a task of node n1 with records', 120, () =>
      [1, 2, 3, 4].find(
        (i) =>
          recordsOf(of(i)) >= 8 &&
          recordsOf(of(i)) < 60 &&
          readFileSync(join(folder, `task-${i}.log`), 'utf8').includes(' on n1,'),
      ),
    )
    fail('n1')
    const before = readFileSync(of(task), 'utf8')
    expect(recordsOf(of(task)) < 60, 'the task was over before its node failed')
    await until('the end of the array', 300, () => run(['squeue', '-h'], env).trim() === '')
    const log = readFileSync(join(folder, `task-${task}.log`), 'utf8')
    expect(/on n2, restart [1-9]/.test(log), `task ${task} was not queued again:\n${log}`)
    const after = readFileSync(of(task), 'utf8')
    expect(after.startsWith(before.slice(0, before.lastIndexOf('\n') + 1)), `records of task ${task} were lost`)
    same(records, whole)
    console.log(
      `SLURM: ok, 4 shards, node n1 failed with ${before.split('\n').length - 2} records of task ${task}, which went on at n2`,
    )
  } finally {
    end()
  }
}

const bySrun = async () => {
  const { env, end } = await slurm()
  try {
    const train = (output) => [
      ...[...mixtrain, 'train', '--limit', '82,8', '--batch-size', '24', '--micro-batches', '4', '--epochs', '1'],
      ...['--device', 'wasm', '--threads', '1', '--output', output],
    ]
    run(train(join(folder, 'one')))
    run(['srun', '--mpi=pmix', '-N', '1', '-n', '2', ...train(join(folder, 'two'))], env)
    const [one, two] = ['one', 'two'].map((name) => hashOf(join(folder, name, 'model.safetensors')))
    expect(one === two, `one process: ${one}, srun -n 2: ${two}`)
    console.log('srun: ok, two ranks train the bits of one process')
  } finally {
    end()
  }
}

// ---- GNU parallel ----------------------------------------------------------------------------------------------------------

const byParallel = async (whole) => {
  const records = join(folder, 'parallel')
  const command = [...mixtrain, ...asked, '--shard', '{}/4', '--output', records, '--json'].join(' ')
  const jobs = spawn('parallel', ['--will-cite', '-j2', '--retries', '3', command, ':::', '1', '2', '3', '4'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, MIXTRAIN_TRIAL: folder },
  })
  const ended = new Promise((resolve) => jobs.on('close', resolve))
  const path = join(records, 'shard-1-of-4.jsonl')
  await until('records of shard 1', 120, () => recordsOf(path) >= 8)
  const victims = processesWith(`MIXTRAIN_TRIAL=${folder}`).filter((pid) => {
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return argv[1] === main && argv.includes('1/4')
  })
  const before = recordsOf(path)
  expect(victims.length === 1 && before < 60, `${victims.length} processes have shard 1, which has ${before} records`)
  kill(victims[0])
  expect((await ended) === 0, 'parallel failed')
  same(records, whole)
  console.log(`GNU parallel: ok, 4 shards, one killed with ${before} records and tried again`)
}

// ------------------------------------------------------------------------------------------------------------------------------

const begun = performance.now()
let [passed, failed] = [0, 0]
const pattern = new RegExp(process.argv[2] ?? '')
const tried = async (name, missing, trial) => {
  if (!pattern.test(name)) return
  if (missing.length > 0) {
    console.log(`SKIP ${name}: ${missing.join(', ')} missing`)
    return
  }
  try {
    await trial()
    passed++
  } catch (e) {
    failed++
    console.log(`${name} FAILED: ${e.message}\n${e.stderr ?? ''}`)
  }
}
try {
  run([...mixtrain, 'train', '--limit', '200,10', '--epochs', '2', '--device', 'wasm', '--output', join(folder, 'run')])
  const whole = run([...mixtrain, ...asked, '--json'])
  const absent = (...commands) => commands.filter((c) => !has(c))
  const daemons = [...absent('slurmctld', 'slurmd', 'munged'), ...(process.getuid() === 0 ? [] : ['root'])]
  await tried('SLURM', daemons, () => underSlurm(whole))
  // Debian's SLURM loads PMIx by the name that only its development package has.
  const pmix = '/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so'
  await tried('srun', [...daemons, ...absent('mpirun'), ...(existsSync(pmix) ? [] : ['libpmix-dev'])], bySrun)
  await tried('GNU parallel', absent('parallel'), () => byParallel(whole))
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(`Cluster: ${passed} passed, ${failed} failed (${((performance.now() - begun) / 1000).toFixed(0)} s)`)
process.exit(failed === 0 ? 0 : 1)
