import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inFolder, mixtrain } from '../cli/run.ts'
import { shared, skipped } from '../shared.ts'

/** Public instances of VNN-COMP, one or two of a family, that take seconds: family, network, property, the verdict that tools agree on. */
const QUICK = [
  'acasxu,ACASXU_run2a_4_2_batch_2000.onnx,prop_1.vnnlib,unsat',
  'acasxu,ACASXU_run2a_1_7_batch_2000.onnx,prop_3.vnnlib,sat',
  'cgan,cGAN_imgSz32_nCh_1.onnx,cGAN_imgSz32_nCh_1_prop_1_input_eps_0.020_output_eps_0.025.vnnlib,sat',
  'cifar10_resnet,resnet_2b.onnx,resnet2b_pgd_filtered-prop_41_eps_0.008.vnnlib,unsat',
  'collins_rul_cnn,NN_rul_full_window_40.onnx,robustness_8perturbations_delta5_epsilon10_w40.vnnlib,unsat',
  'collins_rul_cnn,NN_rul_full_window_40.onnx,robustness_2perturbations_delta20_epsilon10_w40.vnnlib,sat',
  'cora,mnist-point.onnx,mnist-img0.vnnlib,sat',
  'dist_shift,mnist_concat.onnx,index8291_delta0.13.vnnlib,unsat',
  'linearizenn,AllInOne_120_120.onnx,prop_120_120_1.vnnlib,unsat',
  'mnist_fc,mnist-net_256x2.onnx,prop_4_0.05.vnnlib,sat',
  'nn4sys,lindex.onnx,lindex_400.vnnlib,unsat',
  'oval21,cifar_wide_kw.onnx,cifar_wide_kw-img1909-eps0.0033986928104575162.vnnlib,sat',
  'reach_prob_density,vdp.onnx,vdp_3.vnnlib,sat',
  'reach_prob_density,vdp.onnx,vdp_2.vnnlib,unsat',
  'rl_benchmarks,dubinsrejoin.onnx,dubinsrejoin_case_safe_14.vnnlib,unsat',
  'safenlp,ruarobot-perturbations_0.onnx,ruarobot-hyperrectangle_537.vnnlib,sat',
  'sri_resnet_a,resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx,cifar10_spec_idx_6272_eps_0.00350.vnnlib,sat',
  'tllverify,tllBench_n=2_N=M=8_m=1_instance_0_2.onnx,property_N=8_2.vnnlib,unsat',
  'tllverify,tllBench_n=2_N=M=8_m=1_instance_0_0.onnx,property_N=8_0.vnnlib,sat',
  'vit,pgd_2_3_16.onnx,pgd_2_3_16_9052.vnnlib,unsat',
  'vit,ibp_3_3_8.onnx,ibp_3_3_8_7305.vnnlib,unsat',
] as const

const list = shared('vnncomp/instances.csv')
if (list === undefined) skipped('quick instances of VNN-COMP', '../shared is absent')
else
  test(
    `${QUICK.length} quick instances of VNN-COMP: every verdict is the known one`,
    inFolder(async (folder) => {
      const families = [...new Set(QUICK.map((line) => line.split(',')[0]))]
      for (const f of families) symlinkSync(shared(`vnncomp/${f}`) as string, join(folder, f))
      const path = join(folder, 'list.csv')
      writeFileSync(path, `family,onnx,vnnlib,verdict\n${QUICK.join('\n')}\n`)
      const [table, plot] = [join(folder, 'results.csv'), join(folder, 'cactus.svg')]
      const run = ['benchmark', path, '--timeout', '60', '--threads', '2', '--output', table, '--plot', plot, '--json']
      const { code, out } = await mixtrain(run)
      assert.is(code, 0, out)
      const { outcomes } = JSON.parse(out) as {
        readonly outcomes: readonly { verdict: string; expected: string; vnnlib: string }[]
      }
      assert.is(outcomes.length, QUICK.length)
      for (const { verdict, expected, vnnlib } of outcomes) assert.is(verdict, expected, vnnlib)
      assert.match(readFileSync(plot, 'utf8'), new RegExp(`${QUICK.length} of ${QUICK.length} instances decided`))
    }),
  )

test.run()
