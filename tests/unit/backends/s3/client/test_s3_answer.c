/* s3_answer, s3_xml - S3's documents are read as they come, and nothing but whole, well-formed ones. */
#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_xml.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define NS "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

static void test_page(void)
{
    const char *xml = NS "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
                         "<Prefix/><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><Contents><Key>a&amp;b</Key>"
                         "<LastModified>2009-10-12T17:50:30.250Z</LastModified><ETag>&quot;fba9&quot;</ETag>"
                         "<Size>434234</Size><Owner><ID>x</ID></Owner></Contents>"
                         "<Contents><Key>c</Key><Size>0</Size></Contents></ListBucketResult>";
    struct s3_page page;
    CU_ASSERT_EQUAL_FATAL(s3_answer_page(xml, strlen(xml), &page), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(page.count, 2);
    CU_ASSERT_TRUE(page.more);
    CU_ASSERT_STRING_EQUAL(page.entries[0].key, "a&b");
    CU_ASSERT_EQUAL(page.entries[0].object.size, 434234);
    CU_ASSERT_EQUAL(page.entries[0].object.modified_ms, 1255369830250);
    CU_ASSERT_STRING_EQUAL(page.entries[0].object.etag, "\"fba9\"");
    CU_ASSERT_STRING_EQUAL(page.entries[1].key, "c");
    CU_ASSERT_EQUAL(page.entries[1].object.modified_ms, 0);
    s3_page_release(&page);
}

/* A listing that is cut anywhere must not pass for a shorter listing. */
static void test_cut_page(void)
{
    const char *xml = NS "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>1</Size>"
                         "</Contents><Contents><Key>b</Key><Size>1</Size></Contents></ListBucketResult>";
    struct s3_page page;
    for (size_t len = 0; len < strlen(xml); len++) {
        char *cut = strndup(xml, len);
        CU_ASSERT_EQUAL(s3_answer_page(cut, len, &page), BLOB_E_INVALID);
        free(cut);
    }
    CU_ASSERT_EQUAL_FATAL(s3_answer_page(xml, strlen(xml), &page), BLOB_OK);
    CU_ASSERT_EQUAL(page.count, 2);
    s3_page_release(&page);
}

static void test_incomplete_entries(void)
{
    static const char *const bad[] = {
        "<ListBucketResult></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key><Size>-1</Size></Contents>"
        "</ListBucketResult>",
        "<html><body>IsTruncated</body></html>",
    };
    struct s3_page page;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(s3_answer_page(bad[i], strlen(bad[i]), &page), BLOB_E_INVALID);
}

static void test_many_entries(void)
{
    struct bytebuf xml;
    bytebuf_init(&xml);
    bytebuf_text(&xml, "<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (int i = 0; i < 1000; i++)
        bytebuf_printf(&xml, "<Contents><Key>k%04d</Key><Size>%d</Size></Contents>", i, i);
    bytebuf_text(&xml, "</ListBucketResult>");
    struct s3_page page;
    CU_ASSERT_EQUAL_FATAL(s3_answer_page(xml.data, xml.len, &page), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(page.count, 1000);
    CU_ASSERT_STRING_EQUAL(page.entries[999].key, "k0999");
    CU_ASSERT_EQUAL(page.entries[999].object.size, 999);
    s3_page_release(&page);
    bytebuf_release(&xml);
}

static void test_parts_and_uploads(void)
{
    const char *parts_xml = NS "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>2</PartNumber>"
                               "<ETag>\"x\"</ETag><Size>8388608</Size></Part></ListPartsResult>";
    const char *uploads_xml = NS "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>data/1</Key>"
                                 "<UploadId>2~abc</UploadId><Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload>"
                                 "</ListMultipartUploadsResult>";
    struct s3_parts parts;
    CU_ASSERT_EQUAL_FATAL(s3_answer_parts(parts_xml, strlen(parts_xml), &parts), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(parts.count, 1);
    CU_ASSERT_EQUAL(parts.parts[0].number, 2);
    CU_ASSERT_EQUAL(parts.parts[0].size, 8388608);
    CU_ASSERT_STRING_EQUAL(parts.parts[0].etag, "\"x\"");
    s3_parts_release(&parts);
    struct s3_uploads uploads;
    CU_ASSERT_EQUAL_FATAL(s3_answer_uploads(uploads_xml, strlen(uploads_xml), &uploads), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(uploads.count, 1);
    CU_ASSERT_STRING_EQUAL(uploads.uploads[0].key, "data/1");
    CU_ASSERT_STRING_EQUAL(uploads.uploads[0].upload_id, "2~abc");
    CU_ASSERT_EQUAL(uploads.uploads[0].initiated_ms, 1289422113000);
    s3_uploads_release(&uploads);
}

static void test_upload_id(void)
{
    const char *xml = NS "<InitiateMultipartUploadResult><Key>k</Key><UploadId>VXBsb2Fk</UploadId>"
                         "</InitiateMultipartUploadResult>";
    char id[S3_UPLOAD_ID_MAX];
    CU_ASSERT_EQUAL(s3_answer_upload_id(xml, strlen(xml), id), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(id, "VXBsb2Fk");
    const char *empty = "<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>";
    CU_ASSERT_EQUAL(s3_answer_upload_id(empty, strlen(empty), id), BLOB_E_INVALID);
    CU_ASSERT_STRING_EQUAL(id, "VXBsb2Fk");
}

/* Spaces keep a slow CompleteMultipartUpload alive; what follows may be an error all the same. */
static void test_error_in_a_200(void)
{
    const char *xml = "   \n  " NS "<Error><Code>InternalError</Code><Message>We &lt;did&gt;</Message></Error>\n";
    struct s3_refusal refusal = {.http_status = 200};
    CU_ASSERT_TRUE(s3_answer_refusal(xml, strlen(xml), &refusal));
    CU_ASSERT_STRING_EQUAL(refusal.code, "InternalError");
    CU_ASSERT_EQUAL(refusal.http_status, 200);
    CU_ASSERT_FALSE(s3_answer_is_completed(xml, strlen(xml)));
    const char *good = NS "<CompleteMultipartUploadResult><ETag>\"a-2\"</ETag></CompleteMultipartUploadResult>";
    CU_ASSERT_TRUE(s3_answer_is_completed(good, strlen(good)));
    CU_ASSERT_FALSE(s3_answer_is_completed(good, strlen(good) - 1));
    CU_ASSERT_FALSE(s3_answer_refusal(good, strlen(good), &refusal));
    CU_ASSERT_FALSE(s3_answer_is_completed("", 0));
}

static void test_region_of_an_error(void)
{
    const char *xml = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>";
    struct s3_refusal refusal = {.http_status = 400};
    CU_ASSERT_TRUE(s3_answer_refusal(xml, strlen(xml), &refusal));
    CU_ASSERT_STRING_EQUAL(refusal.region, "eu-central-1");
}

static bool see_nothing(const char *path, const char *text, void *arg)
{
    (void)path;
    (void)text;
    (void)arg;
    return true;
}

static void test_strict(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "<a>",
        "</a>",
        "<a></b>",
        "<a/><b/>",
        "x<a/>",
        "<a/>x",
        "<a",
        "<a b></a>",
        "<a b=c/>",
        "<a b='c/>",
        "<a>&nbsp;</a>",
        "<a>&</a>",
        "<a>&#0;</a>",
        "<a>&#xD800;</a>",
        "<a>&#x110000;</a>",
        "<a>&#;</a>",
        "<!DOCTYPE a><a/>",
        "<a><!-- </a>",
        "<a><![CDATA[ </a>",
        "<a><?php ?></a>",
        "<1></1",
        "<a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a>",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CU_ASSERT_EQUAL(s3_xml_read(bad[i], strlen(bad[i]), see_nothing, NULL), BLOB_E_INVALID);
    }
    CU_ASSERT_EQUAL(s3_xml_read("<a>\0</a>", 8, see_nothing, NULL), BLOB_E_INVALID);
    struct bytebuf big;
    bytebuf_init(&big);
    bytebuf_text(&big, "<a>");
    for (int i = 0; i < S3_XML_TEXT_MAX + 1; i++)
        bytebuf_text(&big, "x");
    bytebuf_text(&big, "</a>");
    CU_ASSERT_EQUAL(s3_xml_read(big.data, big.len, see_nothing, NULL), BLOB_E_INVALID);
    bytebuf_release(&big);
}

static bool keep_text_of_key(const char *path, const char *text, void *arg)
{
    if (strcmp(path, "r/Key") == 0)
        snprintf(arg, 64, "%s", text);
    return true;
}

static void test_text(void)
{
    const char *xml = "<x:r xmlns:x='u'><!-- c --><x:Key a='<'>&#x41;&#66;<![CDATA[<&]]>&apos;&#8364;</x:Key></x:r>";
    char key[64] = "";
    CU_ASSERT_EQUAL(s3_xml_read(xml, strlen(xml), keep_text_of_key, key), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(key, "AB<&'\xe2\x82\xac");
}

static void test_part_list(void)
{
    const struct s3_part parts[] = {{1, 5, "\"a\""}, {2, 5, "b&<"}};
    struct bytebuf out;
    bytebuf_init(&out);
    s3_answer_write_parts(&out, parts, 2);
    CU_ASSERT_STRING_EQUAL(out.data, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;"
                                     "</ETag></Part><Part><PartNumber>2</PartNumber><ETag>b&amp;&lt;</ETag></Part>"
                                     "</CompleteMultipartUpload>");
    bytebuf_release(&out);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a page of keys", test_page},
                           {"a listing cut short at any byte is refused", test_cut_page},
                           {"an entry without what we rely on is refused", test_incomplete_entries},
                           {"a thousand keys", test_many_entries},
                           {"parts and unfinished uploads", test_parts_and_uploads},
                           {"the id of a new upload, never an empty one", test_upload_id},
                           {"an error inside a 200 is seen", test_error_in_a_200},
                           {"an error names the bucket's region", test_region_of_an_error},
                           {"what is not well-formed, or more than S3 sends, is refused", test_strict},
                           {"references, CDATA, comments and prefixes", test_text},
                           {"the list of parts is escaped", test_part_list},
                           CU_TEST_INFO_NULL};
    return unit_main("s3_answer", tests);
}
