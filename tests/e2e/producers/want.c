/* usage: want SPOOL MODEL   Drops a want and prints the path of the model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text[1 << 20];

static int answer(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return 1;
}

int main(int count, char **words) {
    char temp[4096], want[4096], progress[4096];
    if (count != 3) return 2;
    snprintf(temp, sizeof temp, "%s/.c.tmp", words[1]);
    snprintf(want, sizeof want, "%s/c.want", words[1]);
    snprintf(progress, sizeof progress, "%s/c.progress", words[1]);
    FILE *file = fopen(temp, "w");
    if (!file || fprintf(file, "%s\n", words[2]) < 0 || fclose(file) || rename(temp, want)) return 1;
    for (int tries = 0; tries < 1200; tries++, usleep(50000)) {
        if (!answer(progress)) continue;
        if (strstr(text, "\n  \"state\": \"failed\"")) return 1;
        char *path = strstr(text, "\"path\": \"");
        if (strstr(text, "\n  \"state\": \"ready\"") && path) {
            path += strlen("\"path\": \"");
            printf("%.*s\n", (int)strcspn(path, "\""), path);
            return 0;
        }
    }
    return 1;
}
