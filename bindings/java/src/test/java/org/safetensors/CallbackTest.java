// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Sources and resolvers: whatever they do, the bytes are right or what they threw comes out. */
@Timeout(60)
class CallbackTest {
    private static final int SIZE = 5 << 20;
    private static final byte[] DATA = Support.pattern(SIZE);
    private static final byte[] FILE = Support.file(Support.header("w", "U8", "[" + SIZE + "]", SIZE), DATA);

    /** Throws once its checkpoint is open. */
    private static final class Failing extends ArraySource {
        volatile Throwable thrown;

        Failing() {
            super(FILE);
        }

        @Override
        public int readAt(long offset, ByteBuffer dst) {
            if (thrown != null) {
                CallbackTest.<RuntimeException>sneak(thrown);
            }
            return super.readAt(offset, dst);
        }
    }

    @SuppressWarnings("unchecked")
    private static <T extends Throwable> void sneak(Throwable thrown) throws T {
        throw (T) thrown;
    }

    @Test
    void readsThroughASource() {
        for (int most : new int[] {Integer.MAX_VALUE, 100_000}) {
            ArraySource source = new ArraySource(FILE, most);
            ByteBuffer view;
            try (Checkpoint checkpoint = Checkpoint.open(source)) {
                assertEquals(Access.CALLBACK, checkpoint.shards().get(0).access());
                assertNull(checkpoint.shards().get(0).path());
                view = checkpoint.get("w").buffer();
                assertEquals(ByteBuffer.wrap(DATA), view);
                int reads = source.reads.get();
                assertEquals(view, checkpoint.get("w").buffer());
                assertEquals(reads, source.reads.get(), "a tensor is read once");
                ByteBuffer part = ByteBuffer.allocate(2);
                checkpoint.get("w").readSlice(part, Range.of(-2, Range.END));
                assertEquals(DATA[SIZE - 1], part.get(1));
                assertEquals(0, source.closed.get());
            }
            assertEquals(1, source.closed.get(), "at closing, although there is a view");
            assertEquals(ByteBuffer.wrap(DATA), view);
        }
    }

    @Test
    void loadsThroughASourceOnThreadsOfTheLibrary() {
        Set<Thread> threads = ConcurrentHashMap.newKeySet();
        ArraySource source = new ArraySource(FILE) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                threads.add(Thread.currentThread());
                assertTrue(Callbacks.isRunning());
                return super.readAt(offset, dst);
            }

            @Override
            public long preferredRead() {
                return 64 << 10;
            }

            @Override
            public int maxParallel() {
                return 3;
            }
        };
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            ByteBuffer dst = ByteBuffer.allocateDirect(SIZE);
            checkpoint.load(List.of(LoadItem.of(checkpoint.get("w"), dst)), new LoadOptions().threads(4));
            assertEquals(ByteBuffer.wrap(DATA), dst);
        }
        for (Thread thread : threads) {
            assertTrue(thread == Thread.currentThread() || thread.isDaemon());
        }
    }

    /** A source is asked for as much as it prefers, and may be given less where direct memory is short. */
    @Test
    void preferredReadsArriveAtTheSource() {
        int size = 12 << 20;
        byte[] file = Support.file(Support.header("w", "U8", "[" + size + "]", size), Support.pattern(size));
        for (int preferred : new int[] {256 << 10, 5 << 20}) {
            Set<Integer> asked = ConcurrentHashMap.newKeySet();
            Source source = new ArraySource(file) {
                @Override
                public int readAt(long offset, ByteBuffer dst) {
                    asked.add(dst.remaining());
                    return super.readAt(offset, dst);
                }

                @Override
                public long preferredRead() {
                    return preferred;
                }
            };
            try (Checkpoint checkpoint = Checkpoint.open(source)) {
                ByteBuffer dst = ByteBuffer.allocateDirect(size);
                checkpoint.load(List.of(LoadItem.of(checkpoint.get("w"), dst)));
                assertEquals((byte) ((size - 1) % 251), dst.get(size - 1));
                int most = asked.stream().mapToInt(n -> n).max().orElse(0);
                assertTrue(most <= preferred && most > preferred / 2, preferred + ": " + asked);
            }
        }
    }

    /** Nothing new is read once the thread is interrupted, although no callback of the load's is called meanwhile. */
    @Test
    void anInterruptEndsALoadWithTheReadsUnderWay() throws Exception {
        CountDownLatch reading = new CountDownLatch(1);
        CountDownLatch gate = new CountDownLatch(1);
        AtomicBoolean open = new AtomicBoolean();
        AtomicInteger late = new AtomicInteger();
        ArraySource source = new ArraySource(FILE) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (open.get()) {
                    if (gate.getCount() == 0) {
                        late.incrementAndGet();
                    }
                    reading.countDown();
                    boolean interrupted = false;
                    while (gate.getCount() > 0) {
                        interrupted |= Thread.interrupted();
                        LockSupport.parkNanos(1_000_000);
                    }
                    if (interrupted) {
                        Thread.currentThread().interrupt();
                    }
                }
                return super.readAt(offset, dst);
            }

            @Override
            public long preferredRead() {
                return 64 << 10;
            }
        };
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            open.set(true);
            AtomicReference<Throwable> thrown = new AtomicReference<>();
            AtomicBoolean stays = new AtomicBoolean();
            Thread loading = new Thread(() -> {
                try {
                    checkpoint.load(List.of(LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(SIZE))),
                            new LoadOptions().threads(2));
                } catch (Throwable e) {
                    thrown.set(e);
                }
                stays.set(Thread.currentThread().isInterrupted());
            });
            loading.start();
            reading.await();
            loading.interrupt();
            // Seen within 20 ms, or later where the machine is busy.
            Thread.sleep(1000);
            gate.countDown();
            loading.join();
            assertEquals(Status.CANCELLED, ((SafetensorsException) thrown.get()).status());
            assertTrue(stays.get());
            assertEquals(0, late.get(), "reads begun");
        }
    }

    @Test
    void uncheckedExceptionsAndErrorsComeOutAsTheyAre() {
        Failing source = new Failing();
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            Tensor tensor = checkpoint.get("w");
            ByteBuffer dst = ByteBuffer.allocateDirect(SIZE);
            for (Throwable thrown : List.of(
                    new IllegalArgumentException("mine"), new StackOverflowError("mine"), new SafetensorsException(Status.SHAPE, "mine"))) {
                source.thrown = thrown;
                assertSame(thrown, assertThrows(Throwable.class, tensor::buffer));
                assertSame(thrown, assertThrows(Throwable.class, () -> tensor.read(dst)));
                assertSame(thrown, assertThrows(Throwable.class, () -> checkpoint.load(List.of(LoadItem.of(tensor, dst)))));
                assertSame(thrown, assertThrows(Throwable.class, () ->
                        Safetensors.serialize(List.of(TensorSpec.of(tensor)), null)));
            }
            source.thrown = null;
            assertEquals(ByteBuffer.wrap(DATA), tensor.buffer());
        }
        assertEquals(1, source.closed.get());
    }

    @Test
    void checkedExceptionsAreCauses() {
        Failing source = new Failing();
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            source.thrown = new IOException("the line is dead");
            SafetensorsException thrown = Support.assertStatus(Status.IO, () -> checkpoint.get("w").buffer());
            assertSame(source.thrown, thrown.getCause());
            assertTrue(thrown.getMessage().contains("the line is dead"), thrown.getMessage());
            assertEquals(0, thrown.errno());
        }
    }

    /** Each call gets what its own read threw, not a neighbour's. */
    @Test
    void failuresAreNotMixedUp() throws Exception {
        int tensors = 8;
        StringBuilder header = new StringBuilder("{");
        for (int i = 0; i < tensors; i++) {
            header.append(i == 0 ? "" : ",").append("\"t").append(i).append("\":{\"dtype\":\"U8\",\"shape\":[1000],")
                    .append("\"data_offsets\":[").append(i * 1000).append(',').append(i * 1000 + 1000).append("]}");
        }
        byte[] file = Support.file(header.append('}').toString(), new byte[tensors * 1000]);
        long data = file.length - tensors * 1000L;
        AtomicBoolean open = new AtomicBoolean();
        ArraySource source = new ArraySource(file) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (open.get()) {
                    throw new IllegalStateException("t" + (offset - data) / 1000);
                }
                return super.readAt(offset, dst);
            }
        };
        ExecutorService pool = Executors.newFixedThreadPool(8);
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            open.set(true);
            List<Future<?>> all = new ArrayList<>();
            for (Tensor tensor : checkpoint.tensors()) {
                all.add(pool.submit(() -> {
                    for (int i = 0; i < 200; i++) {
                        assertEquals(tensor.name(), assertThrows(IllegalStateException.class, tensor::buffer).getMessage());
                    }
                }));
            }
            for (Future<?> one : all) {
                one.get();
            }
        } finally {
            pool.shutdownNow();
        }
    }

    @Test
    void misbehavingSources() {
        for (int result : new int[] {0, -1, Integer.MIN_VALUE}) {
            ArraySource none = new ArraySource(FILE) {
                @Override
                public int readAt(long offset, ByteBuffer dst) {
                    return result;
                }
            };
            Support.assertStatus(Status.IO, () -> Checkpoint.open(none));
            assertEquals(1, none.closed.get());
        }
        ArraySource boasting = new ArraySource(FILE) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                return dst.capacity() + 1;
            }
        };
        assertThrows(IllegalStateException.class, () -> Checkpoint.open(boasting));
        ArraySource negative = new ArraySource(FILE) {
            @Override
            public long size() {
                return -1;
            }
        };
        assertThrows(IllegalArgumentException.class, () -> Checkpoint.open(negative));
        assertEquals(1, negative.closed.get());
        ArraySource shut = new ArraySource(FILE) {
            @Override
            public void close() {
                super.close();
                throw new IllegalStateException("can't");
            }
        };
        Checkpoint checkpoint = Checkpoint.open(shut);
        assertEquals("can't", assertThrows(IllegalStateException.class, checkpoint::close).getMessage());
        checkpoint.close();
        assertEquals(1, shut.closed.get());
    }

    /** A source that keeps its buffer and writes to it later changes nothing that anybody sees. */
    @Test
    void aKeptBufferIsNobodysMemory() {
        List<ByteBuffer> kept = new ArrayList<>();
        ArraySource source = new ArraySource(FILE) {
            @Override
            public synchronized int readAt(long offset, ByteBuffer dst) {
                kept.add(dst);
                return super.readAt(offset, dst);
            }
        };
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            ByteBuffer view = checkpoint.get("w").buffer();
            for (ByteBuffer buffer : kept) {
                buffer.clear().put(new byte[buffer.capacity()]);
            }
            assertEquals(ByteBuffer.wrap(DATA), view);
        }
    }

    /** A source that reads another checkpoint: callbacks within callbacks. */
    @Test
    void nested() {
        byte[] outer = Support.file(Support.header("file", "U8", "[" + FILE.length + "]", FILE.length), FILE);
        try (Checkpoint checkpoint = Checkpoint.open(new ArraySource(outer))) {
            Tensor file = checkpoint.get("file");
            Source inner = new Source() {
                @Override
                public long size() {
                    return file.size();
                }

                @Override
                public int readAt(long offset, ByteBuffer dst) {
                    ByteBuffer limited = dst.limit(Math.min(dst.limit(), 300_000));
                    file.readSlice(limited, Range.of(offset, offset + limited.remaining()));
                    return limited.remaining();
                }
            };
            try (Checkpoint within = Checkpoint.open(inner)) {
                assertEquals(ByteBuffer.wrap(DATA), within.get("w").buffer());
            }
        }
    }

    private static final byte[] INDEX =
            "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}".getBytes();

    private static Map<String, ArraySource> model() {
        Map<String, ArraySource> files = new HashMap<>();
        files.put("m/model.safetensors.index.json", new ArraySource(INDEX));
        files.put("m/one.safetensors", new ArraySource(Support.file(Support.header("a", "U8", "[1]", 1), new byte[] {1})));
        files.put("m/two.safetensors", new ArraySource(Support.file(Support.header("b", "U8", "[1]", 1), new byte[] {2})));
        return files;
    }

    @Test
    void resolver() {
        Map<String, ArraySource> files = model();
        try (Checkpoint checkpoint = Checkpoint.open(files::get, "m/model.safetensors.index.json")) {
            assertEquals(1, checkpoint.get("a").buffer().get());
            assertEquals(2, checkpoint.get("b").buffer().get());
            assertEquals(List.of("m/one.safetensors", "m/two.safetensors"), checkpoint.shards().stream().map(Shard::path).toList());
        }
        files.values().forEach(source -> assertEquals(1, source.closed.get()));
    }

    @Test
    void resolverThatFails() {
        for (Throwable thrown : List.of(new FileNotFoundException("gone"), new IllegalStateException("mine"))) {
            Map<String, ArraySource> files = model();
            Resolver failing = name -> {
                if (name.equals("m/two.safetensors")) {
                    sneak(thrown);
                }
                return files.get(name);
            };
            Throwable out = assertThrows(Throwable.class, () -> Checkpoint.open(failing, "m/model.safetensors.index.json"));
            if (thrown instanceof IOException) {
                assertEquals(Status.SHARD, ((SafetensorsException) out).status());
                assertSame(thrown, out.getCause());
            } else {
                assertSame(thrown, out);
            }
            assertEquals(1, files.get("m/one.safetensors").closed.get());
        }
        NullPointerException none = assertThrows(NullPointerException.class, () -> Checkpoint.open(name -> null, "x"));
        assertNotNull(none.getMessage());
    }

    @Test
    void whatIsThrownOnAThreadOfTheLibraryComesOut() {
        AtomicReference<Thread> thrower = new AtomicReference<>();
        Thread caller = Thread.currentThread();
        ArraySource source = new ArraySource(FILE) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (Thread.currentThread() != caller) {
                    thrower.set(Thread.currentThread());
                    throw new IllegalStateException("elsewhere");
                }
                return super.readAt(offset, dst.limit(Math.min(dst.limit(), 1000)));
            }
        };
        try (Checkpoint checkpoint = Checkpoint.open(source)) {
            LoadItem item = LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(SIZE));
            LoadOptions options = new LoadOptions().threads(4);
            if (checkpoint.plan(List.of(item), options).threads() > 1) {
                IllegalStateException thrown =
                        assertThrows(IllegalStateException.class, () -> checkpoint.load(List.of(item), options));
                assertEquals("elsewhere", thrown.getMessage());
                assertNotNull(thrower.get());
            }
        }
    }
}
