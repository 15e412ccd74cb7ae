/**
 * `mixtrain/nn`: layers and networks. A layer is given the shape of its input (without the image axis) and says its output, its parameters and what it does to
 * tensors and to interval tensors alike.
 *
 * @example
 *   import * as nn from 'mixtrain/nn'
 *   const mlp = nn.network('mlp', nn.sequential(nn.flatten, nn.dense(50), nn.relu, nn.dense(10)), { input: [1, 28, 28], classes: 10 })
 *
 * @module
 */

export * from '../nn/layers.ts'
export { type Network, type NetworkName, network, networks, type Task } from '../nn/networks.ts'
