/* A resolver that hangs: a library for LD_PRELOAD. A look-up of a name that ends in ".slow" takes SLOW_NAMES_S seconds
 * and then fails, as with name servers that do not answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    size_t length = node ? strlen(node) : 0;
    if (length > 5 && strcmp(node + length - 5, ".slow") == 0) {
        const char *seconds = getenv("SLOW_NAMES_S");
        sleep(seconds ? (unsigned)atoi(seconds) : 60);
        return EAI_AGAIN;
    }
    if (!real)
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hints, found);
}
