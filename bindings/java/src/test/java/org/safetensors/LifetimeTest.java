// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.ref.WeakReference;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Closing, collecting, and using at the same time. */
@Timeout(value = 2, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class LifetimeTest {
    private static final int SIZE = 1 << 20;

    @TempDir
    Path folder;

    private Path path;

    @BeforeEach
    void write() throws IOException {
        path = Files.write(folder.resolve("model.safetensors"),
                Support.file(Support.header("w", "F32", "[" + SIZE / 4 + "]", SIZE), Support.pattern(SIZE)));
    }

    @Test
    void closedIsClosed() {
        Checkpoint checkpoint = Checkpoint.open(path);
        Tensor tensor = checkpoint.get("w");
        assertFalse(checkpoint.isClosed());
        checkpoint.close();
        checkpoint.close();
        assertTrue(checkpoint.isClosed());
        for (Runnable use : List.<Runnable>of(
                checkpoint::tensors, checkpoint::shards, checkpoint::metadata, checkpoint::hasMetadata, checkpoint::prefetch,
                () -> checkpoint.get("w"), () -> checkpoint.find("w"), () -> checkpoint.load(List.of()),
                () -> checkpoint.plan(List.of(), new LoadOptions()), () -> checkpoint.prefetch(List.of(tensor)),
                tensor::buffer, tensor::floatBuffer, () -> tensor.window(0, 0), () -> tensor.read(ByteBuffer.allocate(SIZE)),
                () -> tensor.readSlice(ByteBuffer.allocate(SIZE)), tensor::sliceShape,
                () -> checkpoint.load(List.of(LoadItem.of(tensor, ByteBuffer.allocateDirect(SIZE)))),
                () -> Safetensors.serialize(List.of(TensorSpec.of(tensor)), null))) {
            IllegalStateException thrown = assertThrows(IllegalStateException.class, use::run);
            assertEquals("the checkpoint is closed", thrown.getMessage());
        }
        assertEquals("w", tensor.name());
        assertEquals(SIZE, tensor.size());
    }

    @Test
    void aCheckpointWithoutViewsIsUnmappedByClosing() {
        Checkpoint checkpoint = Checkpoint.open(path, new OpenOptions().access(Access.MAP));
        assertTrue(Support.isMapped(path));
        checkpoint.close();
        assertFalse(Support.isMapped(path));
    }

    /** Every kind of buffer made from a view keeps the mapping; the last one gone, it goes. */
    @Test
    void viewsKeepWhatTheyShow() throws InterruptedException {
        List<Function<ByteBuffer, Buffer>> kinds = List.of(
                view -> view, ByteBuffer::slice, view -> view.slice(4, 8), ByteBuffer::duplicate, ByteBuffer::asReadOnlyBuffer,
                ByteBuffer::asFloatBuffer, view -> view.slice().asLongBuffer().slice().duplicate(),
                view -> view.asFloatBuffer().asReadOnlyBuffer(), ByteBuffer::asShortBuffer);
        for (Function<ByteBuffer, Buffer> kind : kinds) {
            Buffer[] kept = {kind.apply(viewOfClosed())};
            for (int i = 0; i < 5; i++) {
                System.gc();
                Thread.sleep(2);
            }
            assertTrue(Support.isMapped(path));
            check(kept[0]);
            kept[0] = null;
            Support.collectUntil(() -> !Support.isMapped(path));
        }
    }

    private static void check(Buffer kept) {
        if (kept instanceof FloatBuffer floats) {
            assertEquals(Float.intBitsToFloat(0x03020100), floats.get(0));
        } else if (kept instanceof ByteBuffer bytes) {
            assertEquals(bytes.capacity() == 8 ? 4 : 0, bytes.get(0));
        }
    }

    private ByteBuffer viewOfClosed() {
        try (Checkpoint checkpoint = Checkpoint.open(path, new OpenOptions().access(Access.MAP))) {
            return checkpoint.get("w").buffer();
        }
    }

    private static ByteBuffer viewOfClosed(ByteBuffer file) {
        try (Checkpoint checkpoint = Checkpoint.open(file)) {
            return checkpoint.get("w").buffer();
        }
    }

    @Test
    void aCheckpointThatIsNeverClosedIsCollected() throws InterruptedException {
        Checkpoint[] open = {Checkpoint.open(path, new OpenOptions().access(Access.MAP))};
        Tensor[] tensor = {open[0].get("w")};
        WeakReference<Checkpoint> reference = new WeakReference<>(open[0]);
        open[0] = null;
        System.gc();
        assertEquals(3, tensor[0].buffer().get(3), "a tensor keeps its checkpoint");
        tensor[0] = null;
        Support.collect(reference);
        Support.collectUntil(() -> !Support.isMapped(path));
    }

    @Test
    void memoryStaysWhileThereAreViews() throws InterruptedException {
        ByteBuffer[] file = {ByteBuffer.allocateDirect(200)};
        file[0].put(Support.file(Support.header("w", "U8", "[4]", 4), new byte[] {1, 2, 3, 4})).flip();
        WeakReference<ByteBuffer> reference = new WeakReference<>(file[0]);
        ByteBuffer[] view = {viewOfClosed(file[0])};
        file[0] = null;
        for (int i = 0; i < 5; i++) {
            System.gc();
            Thread.sleep(2);
        }
        assertEquals(4, view[0].get(3));
        assertTrue(reference.get() != null);
        view[0] = null;
        Support.collect(reference);
    }

    /** A call under way makes close wait; when close returns, the call is over. */
    @Test
    void closeWaitsForACallUnderWay() throws Exception {
        CountDownLatch reading = new CountDownLatch(1);
        CountDownLatch goOn = new CountDownLatch(1);
        byte[] file = Files.readAllBytes(path);
        Source slow = new ArraySource(file) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (reading.getCount() > 0 && offset > 1000) {
                    reading.countDown();
                    await(goOn);
                }
                return super.readAt(offset, dst);
            }
        };
        Checkpoint checkpoint = Checkpoint.open(slow);
        Tensor tensor = checkpoint.get("w");
        ByteBuffer dst = ByteBuffer.allocate(SIZE);
        Thread reader = new Thread(() -> {
            tensor.readSlice(dst, Range.of(SIZE / 8, Range.END));
            tensor.checkpoint().isClosed();
        });
        reader.start();
        reading.await();
        Thread closer = new Thread(checkpoint::close);
        closer.start();
        while (!checkpoint.isClosed()) {
            Thread.onSpinWait();
        }
        assertThrows(IllegalStateException.class, tensor::buffer, "nobody new gets in");
        assertTrue(closer.isAlive());
        closer.interrupt();
        goOn.countDown();
        closer.join();
        reader.join();
        assertEquals((byte) (SIZE / 2 % 251), dst.get(0));
        assertEquals((byte) ((SIZE - 1) % 251), dst.get(SIZE / 2 - 1));
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** It would wait for itself. */
    @Test
    void closeInACallbackIsRefused() throws IOException {
        AtomicReference<Checkpoint> checkpoint = new AtomicReference<>();
        AtomicReference<RuntimeException> refused = new AtomicReference<>();
        Source closing = new ArraySource(Files.readAllBytes(path)) {
            @Override
            public int readAt(long offset, ByteBuffer dst) {
                if (checkpoint.get() != null) {
                    try {
                        checkpoint.get().close();
                    } catch (RuntimeException e) {
                        refused.set(e);
                    }
                }
                return super.readAt(offset, dst);
            }
        };
        checkpoint.set(Checkpoint.open(closing));
        ByteBuffer view = checkpoint.get().get("w").buffer();
        assertEquals(3, view.get(3));
        assertTrue(refused.get() instanceof IllegalStateException);
        assertFalse(checkpoint.get().isClosed());
        checkpoint.get().close();
    }

    /** Readers, closers and the collector at once: everybody gets the right bytes or an exception. */
    @Test
    void racesUnderLoad() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        try {
            for (int round = 0; round < 150; round++) {
                OpenOptions options = new OpenOptions().access(round % 2 == 0 ? Access.MAP : Access.READ);
                Checkpoint checkpoint = Checkpoint.open(path, options);
                Tensor tensor = checkpoint.get("w");
                CountDownLatch start = new CountDownLatch(1);
                List<Future<?>> all = new ArrayList<>();
                for (int user = 0; user < 6; user++) {
                    int kind = user % 3;
                    all.add(pool.submit(() -> {
                        start.await();
                        use(tensor, kind);
                        return null;
                    }));
                }
                for (int closer = 0; closer < 2; closer++) {
                    all.add(pool.submit(() -> {
                        start.await();
                        Thread.yield();
                        checkpoint.close();
                        return null;
                    }));
                }
                start.countDown();
                if (round % 16 == 0) {
                    System.gc();
                }
                for (Future<?> one : all) {
                    one.get();
                }
                assertTrue(checkpoint.isClosed());
            }
        } finally {
            pool.shutdownNow();
        }
        Support.collectUntil(() -> !Support.isMapped(path));
    }

    private static void use(Tensor tensor, int kind) {
        ByteBuffer dst = ByteBuffer.allocateDirect(SIZE);
        while (true) {
            try {
                switch (kind) {
                    case 0 -> assertEquals((byte) (777777 % 251), tensor.buffer().get(777777));
                    case 1 -> {
                        tensor.read(dst);
                        assertEquals((byte) (777777 % 251), dst.get(777777));
                    }
                    default -> {
                        tensor.checkpoint().load(List.of(LoadItem.of(tensor, dst)));
                        assertEquals((byte) (777777 % 251), dst.get(777777));
                    }
                }
            } catch (IllegalStateException closed) {
                return;
            }
        }
    }

    /**
     * Views of closed checkpoints hold descriptors until they are collected: programs that do nothing wrong must not run
     * out of them, nor leave none for their own files.
     */
    @Test
    void descriptorsDoNotRunOut() throws Exception {
        for (String kind : List.of("closed", "dropped", "sharded", "crowded")) {
            String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
            String command = "ulimit -n 200; exec \"$0\" \"$@\"";
            String output = Support.run(List.of("bash", "-c", command, java, "-Dsafetensors.repository=" + Support.REPOSITORY,
                    "-cp", Support.CLASS_PATH, Opens.class.getName(), kind, folder.toString()));
            assertEquals("never ran out", Support.lastLine(output), kind + ": " + output);
        }
    }

    static final class Opens {
        public static void main(String[] arguments) throws Exception {
            Path path = Path.of(arguments[1], "one.safetensors");
            boolean sharded = arguments[0].equals("sharded");
            if (sharded) {
                List<TensorSpec> specs = new ArrayList<>();
                for (int i = 0; i < 40; i++) {
                    specs.add(TensorSpec.of("w" + i, new float[256], 256));
                }
                path = Path.of(arguments[1], "many");
                Files.createDirectories(path);
                Safetensors.save(path.resolve("model.safetensors"), specs, null, new SaveOptions().maxShardSize(1024).sync(false));
            } else {
                Safetensors.save(path, List.of(TensorSpec.of("w0", new float[256], 256)));
            }
            // Hardly any are left to begin with: the system refuses before what is counted here is much.
            boolean crowded = arguments[0].equals("crowded");
            List<AutoCloseable> own = new ArrayList<>();
            for (int i = 0; crowded && i < 160; i++) {
                own.add(Files.newInputStream(Path.of("/proc/self/stat")));
            }
            for (int i = 0; i < (sharded ? 100 : 1000); i++) {
                Checkpoint checkpoint = Checkpoint.open(path, new OpenOptions().access(Access.MAP));
                checkpoint.get("w0").floatBuffer().get(3);
                if (!arguments[0].equals("dropped")) {
                    checkpoint.close();
                }
                if (!crowded) {
                    // The program's own.
                    Files.newInputStream(Path.of("/proc/self/stat")).close();
                }
            }
            for (AutoCloseable one : own) {
                one.close();
            }
            System.out.println("never ran out");
        }
    }

    /** What the library has to load later on would be missing where there are no descriptors. */
    @Test
    void allClassesAreLoadedAtOnce() throws Exception {
        Path classes = Support.REPOSITORY.resolve("bindings/java/target/classes/org/safetensors");
        try (Stream<Path> files = Files.list(classes)) {
            List<String> there = files.map(file -> file.getFileName().toString()).filter(name -> name.endsWith(".class"))
                    .map(name -> name.substring(0, name.length() - ".class".length()))
                    .filter(name -> !List.of("Native", "NativeLibrary", "package-info").contains(name)).sorted().toList();
            assertEquals(there, Classes.NAMES.stream().sorted().toList());
        }
    }

    /** The first thing that a program does is to use up its descriptors: whatever happens then is reported. */
    @Test
    void withoutDescriptorsErrorsAreToldAll() throws Exception {
        Safetensors.save(folder.resolve("one.safetensors"), List.of(TensorSpec.of("w", new float[256], 256)));
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        String command = "ulimit -n 100; exec \"$0\" \"$@\"";
        String output = Support.run(List.of("bash", "-c", command, java, "-Dsafetensors.repository=" + Support.REPOSITORY,
                "-cp", Support.CLASS_PATH, Exhausted.class.getName(), folder.toString()));
        assertEquals("all told", Support.lastLine(output), output);
    }

    static final class Exhausted {
        private static String told(String what, Runnable call) {
            try {
                call.run();
                return what + " works";
            } catch (SafetensorsException e) {
                return what + " " + e.status() + " " + e.errno();
            }
        }

        public static void main(String[] arguments) throws Exception {
            Path path = Path.of(arguments[0], "one.safetensors");
            byte[] file = Files.readAllBytes(path);
            ByteBuffer direct = ByteBuffer.allocateDirect(file.length).put(file).flip();
            Source source = new ArraySource(file);
            Source broken = new Source() {
                @Override
                public long size() {
                    return file.length;
                }

                @Override
                public int readAt(long offset, ByteBuffer dst) throws IOException {
                    throw new IOException("cut off");
                }
            };
            Safetensors.version();
            List<String> found = new ArrayList<>(40);
            List<RandomAccessFile> all = new ArrayList<>(200);
            boolean left = true;
            while (left) {
                try {
                    all.add(new RandomAccessFile(path.toFile(), "r"));
                } catch (IOException e) {
                    left = false;
                }
            }
            found.add(told("open", () -> Checkpoint.open(path)));
            found.add(told("save", () -> Safetensors.save(path, List.of(TensorSpec.of("w", new float[1], 1)))));
            found.add(told("stream", () -> Writer.open(path, List.of(TensorSpec.of("w", Dtype.F32, 1)), null, new SaveOptions())));
            found.add(told("validate", () -> Safetensors.validate(path, new OpenOptions(), problem -> true)));
            found.add(told("metadata", () -> Safetensors.setMetadata(path, null, false, false)));
            found.add(told("source", () -> Checkpoint.open(broken)));
            found.add(told("resolver", () -> Checkpoint.open(name -> broken, "x")));
            found.add(told("memory", () -> {
                try (Checkpoint checkpoint = Checkpoint.open(direct)) {
                    checkpoint.get("none");
                }
            }));
            found.add(told("load", () -> {
                try (Checkpoint checkpoint = Checkpoint.open(source)) {
                    Thread.currentThread().interrupt();
                    LoadItem item = LoadItem.of(checkpoint.get("w"), ByteBuffer.allocateDirect(1024));
                    checkpoint.load(List.of(item), new LoadOptions().progress((done, total) -> false));
                } finally {
                    Thread.interrupted();
                }
            }));
            for (RandomAccessFile one : all) {
                one.close();
            }
            List<String> wanted = List.of("open IO 24", "save IO 24", "stream IO 24", "validate IO 24", "metadata IO 24",
                    "source IO 0", "resolver IO 0", "memory NOT_FOUND 0", "load CANCELLED 0");
            System.out.println(found.equals(wanted) ? "all told" : found.toString());
        }
    }

    /** A heap buffer's copy goes when the checkpoint is closed, and what views show when they are collected. */
    @Test
    void copiesDoNotPileUp() throws Exception {
        for (String kind : List.of("closed", "viewed", "read", "serialized")) {
            String output = Support.java(List.of("-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch"),
                    List.of(Copies.class.getName(), kind, folder.toString()));
            assertEquals("never grew", Support.lastLine(output), kind + ": " + output);
        }
    }

    static final class Copies {
        private static final int SIZE = 1 << 20;

        public static void main(String[] arguments) throws Exception {
            byte[] file = Support.file(Support.header("w", "U8", "[" + SIZE + "]", SIZE), Support.pattern(SIZE));
            Path path = Files.write(Path.of(arguments[1], "copies.safetensors"), file);
            long before = Cycles.resident();
            long most = 0;
            for (int i = 0; i < 300; i++) {
                switch (arguments[0]) {
                    case "closed" -> Checkpoint.open(ByteBuffer.wrap(file)).close();
                    case "viewed" -> {
                        try (Checkpoint checkpoint = Checkpoint.open(ByteBuffer.wrap(file))) {
                            checkpoint.get("w").buffer().get(5);
                        }
                    }
                    case "read" -> {
                        try (Checkpoint checkpoint = Checkpoint.open(path, new OpenOptions().access(Access.READ))) {
                            checkpoint.get("w").buffer().get(5);
                        }
                    }
                    default -> Safetensors.serialize(List.of(TensorSpec.of("w", Dtype.U8, SIZE).data(ByteBuffer.wrap(file, 0, SIZE))), null);
                }
                most = Math.max(most, Cycles.resident() - before);
            }
            // Without views hardly anything; with them as much as the heap is large, and the direct buffers again.
            long limit = arguments[0].equals("closed") ? 32L << 20 : 160L << 20;
            System.out.println(most > limit ? arguments[0] + " grew by " + most : "never grew");
        }
    }

    /** In a JVM whose heap is of one size and touched from the start, so that what grows is native memory. */
    @Test
    void nothingLeaks() throws Exception {
        String output = Support.java(List.of("-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch"), List.of(Cycles.class.getName(), folder.toString()));
        assertEquals("nothing leaks", Support.lastLine(output), output);
    }

    /** Opens, after 10,000 in which the JVM has compiled what there is: as many descriptors, and no more memory each time. */
    static final class Cycles {
        private static final int TENSORS = 200;

        public static void main(String[] arguments) throws Exception {
            List<TensorSpec> specs = new ArrayList<>();
            for (int i = 0; i < TENSORS; i++) {
                specs.add(TensorSpec.of("model.layers." + i + ".weight", new int[] {i}, 1));
            }
            Path path = Path.of(arguments[0], "cycles.safetensors");
            Safetensors.save(path, specs);
            byte[] file = Files.readAllBytes(path);
            cycle(path, file, 10_000);
            Support.collectUntil(() -> !Support.isMapped(path));
            long descriptors = descriptors();
            List<Long> resident = new ArrayList<>(List.of(resident()));
            for (int round = 0; round < 2; round++) {
                cycle(path, file, 6_000);
                Support.collectUntil(() -> !Support.isMapped(path));
                resident.add(resident());
            }
            // One list of tensors, of 1200 of a kind, is over 20 kB. What grows once has come to what it needs.
            boolean grown = resident.get(1) - resident.get(0) > 16 << 20 && resident.get(2) - resident.get(1) > 16 << 20;
            System.out.println(grown || descriptors() != descriptors
                    ? descriptors + " descriptors became " + descriptors() + ", bytes " + resident
                    : "nothing leaks");
        }

        private static void cycle(Path path, byte[] file, int times) {
            for (int i = 0; i < times; i++) {
                switch (i % 5) {
                    case 0 -> check(Checkpoint.open(path), true);
                    case 1 -> check(Checkpoint.open(new ArraySource(file)), true);
                    case 2 -> check(Checkpoint.open(path, new OpenOptions().access(Access.READ)), false);
                    case 3 -> Support.assertStatus(Status.IO, () -> Checkpoint.open(new ArraySource(file) {
                        @Override
                        public int readAt(long offset, ByteBuffer dst) {
                            return 0;
                        }
                    }));
                    default -> Support.assertStatus(Status.TRUNCATED, () -> Checkpoint.open(ByteBuffer.wrap(file, 0, file.length - 1)));
                }
            }
        }

        private static void check(Checkpoint opened, boolean view) {
            try (Checkpoint checkpoint = opened) {
                Tensor tensor = checkpoint.tensors().get(TENSORS - 1);
                ByteBuffer copy = ByteBuffer.allocateDirect(4);
                checkpoint.load(List.of(LoadItem.of(tensor, copy)));
                if (copy.get(0) == 0 || view && !copy.equals(tensor.buffer())) {
                    throw new AssertionError();
                }
            }
        }

        private static long descriptors() throws IOException {
            try (Stream<Path> open = Files.list(Path.of("/proc/self/fd"))) {
                return open.count();
            }
        }

        private static long resident() throws IOException {
            return Files.readAllLines(Path.of("/proc/self/status")).stream().filter(line -> line.startsWith("RssAnon:"))
                    .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")) * 1024).sum();
        }
    }
}
