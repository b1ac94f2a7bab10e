// SPDX-License-Identifier: Apache-2.0
package org.safetensors;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The programs in examples/java, run as a user runs them. */
class ExamplesTest {
    private static final Path EXAMPLES = Support.REPOSITORY.resolve("examples");
    private static final String MODEL = EXAMPLES.resolve("data/silero_vad_16k.safetensors").toString();
    private static final String SPEECH = EXAMPLES.resolve("data/speech.wav").toString();

    @TempDir
    static Path classes;

    @BeforeAll
    static void compile() {
        int result = ToolProvider.getSystemJavaCompiler().run(null, null, null, "-cp", Support.CLASS_PATH, "-d", classes.toString(),
                "-Xlint:all", "-Werror", EXAMPLES.resolve("java/Vad.java").toString(), EXAMPLES.resolve("java/Statistics.java").toString());
        assertEquals(0, result);
    }

    private static String example(String name, String... arguments) throws Exception {
        List<String> all = new ArrayList<>(List.of("-cp", Support.CLASS_PATH + File.pathSeparator + classes, name));
        all.addAll(List.of(arguments));
        return Support.java(List.of(), all);
    }

    /** Index, start and probability of each window; the probability to 1e-5. */
    private static void assertSameProbabilities(List<String> wanted, List<String> got) {
        assertEquals(wanted.size(), got.size());
        for (int i = 0; i < wanted.size(); i++) {
            String[] want = wanted.get(i).split(" ");
            String[] have = got.get(i).split(" ");
            assertEquals(want[0] + " " + want[1], have[0] + " " + have[1]);
            assertEquals(Double.parseDouble(want[2]), Double.parseDouble(have[2]), 1e-5);
        }
    }

    private static List<String> segments(String output) {
        return output.lines().filter(line -> line.contains(" s to ") || line.contains("of speech in")).toList();
    }

    @Test
    void vadAsTheReference() throws Exception {
        List<String> reference = Files.readAllLines(EXAMPLES.resolve("data/vad_reference.txt"));
        assertSameProbabilities(reference, example("Vad", MODEL, SPEECH, "--probabilities").lines().toList());
        assertEquals(List.of("2 segments of speech in 7.84 s of sound", "    0.71 s to 3.68 s", "    4.74 s to 7.33 s"),
                segments(example("Vad", MODEL, SPEECH)));
    }

    @Test
    void vadAsTheProgramInC() throws Exception {
        String program = Support.REPOSITORY.resolve("build/examples/vad").toString();
        assumeTrue(Files.isExecutable(Path.of(program)), "the C example is not built");
        assertSameProbabilities(Support.run(List.of(program, MODEL, SPEECH, "--probabilities")).lines().toList(),
                example("Vad", MODEL, SPEECH, "--probabilities").lines().toList());
        String wanted = Support.run(List.of(program, MODEL, SPEECH));
        String got = example("Vad", MODEL, SPEECH);
        assertEquals(wanted.lines().limit(14).map(String::stripTrailing).toList(),
                got.lines().limit(14).map(String::stripTrailing).toList(), "the picture and the segments");
    }

    @Test
    void whatIsNoModelAndNoSound() throws Exception {
        assertTrue(example("Vad", SPEECH, SPEECH).startsWith("Vad: HEADER_TOO_LARGE: "));
        assertTrue(example("Vad", MODEL, MODEL).startsWith("Vad: " + MODEL + ": "));
        assertTrue(example("Vad", MODEL, "/nonexistent.wav").startsWith("Vad: /nonexistent.wav: "));
    }

    @Test
    void statistics() throws Exception {
        String output = example("Statistics", MODEL);
        // As Python computes them.
        assertTrue(output.contains(
                "       49536      -10.661       1.7405    -0.017849      0.27380  \"conv1.weight\" F32 [128, 129, 3]"), output);
        assertEquals(16, output.lines().count());
    }
}
