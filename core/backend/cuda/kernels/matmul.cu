/* cuda/kernels/matmul.cu: products of matrices by tiles, any strides, f32 accumulation.  What cuBLAS replaces where it is used. */
#include "backend/cuda/kernels/own.cuh"

#define TILE 64
#define DEPTH 16

/* 16 x 16 threads make 64 x 64 elements, each 4 x 4 of them. */
template <class T> static __device__ void
product (const HkMatmul &a, int64_t batch, int64_t row0)
{
  __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
  int thread = (int) threadIdx.x, tx = thread & 15, ty = thread >> 4;
  int64_t column0 = (int64_t) blockIdx.x * TILE;
  float sum[4][4] = { { 0 } };
  for (int64_t k0 = 0; k0 < a.k; k0 += DEPTH)
    {
      for (int e = thread; e < TILE * DEPTH; e += 256)
        {
          /* neighbouring threads along whichever axis is contiguous */
          int i = a.a_column == 1 ? e / DEPTH : e % TILE, l = a.a_column == 1 ? e % DEPTH : e / TILE;
          int j = a.b_column == 1 ? e % TILE : e / DEPTH, l2 = a.b_column == 1 ? e / TILE : e % DEPTH;
          left[l][i] = row0 + i < a.m && k0 + l < a.k ? ld<T> (a.a, batch * a.a_batch + (row0 + i) * a.a_row + (k0 + l) * a.a_column) : 0.0f;
          right[l2][j] = column0 + j < a.n && k0 + l2 < a.k ? ld<T> (a.b, batch * a.b_batch + (k0 + l2) * a.b_row + (column0 + j) * a.b_column) : 0.0f;
        }
      __syncthreads ();
      float part[4][4] = { { 0 } };           /* sums of sums round less than one long sum */
      for (int l = 0; l < DEPTH; l++)
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 4; j++)
            part[i][j] += left[l][ty + 16 * i] * right[l][tx + 16 * j];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
          sum[i][j] += part[i][j];
      __syncthreads ();
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      {
        int64_t row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
        if (row < a.m && column < a.n)
          st<T> (a.c, (batch * a.m + row) * a.n + column, sum[i][j] + (a.bias ? ld<T> (a.bias, column) : 0.0f));
      }
}

template <class T> static __device__ void
matmul (const HkMatmul &a)
{
  for (int64_t batch = blockIdx.z; batch < a.batch; batch += gridDim.z)
    for (int64_t row = (int64_t) blockIdx.y * TILE; row < a.m; row += (int64_t) gridDim.y * TILE)
      product<T> (a, batch, row);
}
KERNEL (matmul, HkMatmul)
