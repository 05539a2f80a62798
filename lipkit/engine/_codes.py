"""The numbers by which a program tells the compiled function what to do.

Rows of a program's tables, column by column (places count single numbers in the memory):

convs      first kept weight, kept weights, taps, place of the weights, place and order of those
           that forward reads, slots and places of merged taps (-1: none), place of the taps'
           gradients, input planes, rows and offsets of taps in groups of eight, gradients of the
           output planes, their distance, vectors a plane, vectors at once, rows, output planes,
           place and order of the weights that backward reads, cuts of the rows, blocks of planes
matrices   input, rows, offsets, weights, output, distance of the output planes, blocks, planes
chains     first op, end, images, end of what backward computes again, two gradient buffers
LOAD       result, -, mode, z, distance of channels, of phases, pitch, distance of images, height,
           width, gz and its two distances, whether all channels are there, zeros in front
NORM       result, input, whether with norm, activation, scale, shift, statistics, size
DOUBLE     result, input, whether bilinear, height, width
CROP       result, input, height, width, top, left, new height, new width
WRITE      -, input, whether split, u, distance of channels, of phases, pitch, distance of images,
           pad, padding, whether means of 2x2, height, width, -, gu
OUT        -, input, -, bias (-1: none), -, -, pixels, channels
"""

from __future__ import annotations

LANES = 16  # numbers in a vector
GATHER, COMBINE, FORWARD, BACKWARD, CORRELATE, SCATTER = range(6)  # tasks
LOAD, NORM, DOUBLE, CROP, WRITE, OUT = range(6)  # operations of a chain
PLAIN, PHASES, MAXIMUM = range(3)  # how a chain reads what a convolution wrote
REFLECT, REPLICATE, ZEROS = range(3)  # padding
ACTIVATIONS = {"none": 0, "leaky": 1, "relu": 2}
SLOPES = (1.0, 0.2, 0.0)  # of these, below zero
COLUMNS = 22
