//! Sample files: well-formed ones, and hostile ones.

use std::io::{Cursor, Write};
use std::sync::LazyLock;

use zip::write::{SimpleFileOptions, ZipWriter};

const W: &str = "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"";

fn archive(document: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("word/document.xml", SimpleFileOptions::default()).unwrap();
    zip.write_all(document).unwrap();
    zip.finish().unwrap().into_inner()
}

/// A text document of one paragraph.
pub(crate) fn docx(text: &str) -> Vec<u8> {
    let paragraph = format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>");
    archive(format!("<w:document {W}><w:body>{paragraph}</w:body></w:document>").as_bytes())
}

/// A few KiB that become 16 MiB.
pub(crate) fn bomb() -> Vec<u8> {
    archive(&vec![b' '; 16 << 20])
}

/// Elements within each other.
pub(crate) fn nested_docx() -> Vec<u8> {
    archive(format!("<w:document {W}>{}", "<w:p>".repeat(100_000)).as_bytes())
}

/// A PDF of one page and one line.
pub(crate) fn pdf(text: &str) -> Vec<u8> {
    let content = format!("BT /F1 12 Tf 72 720 Td ({text}) Tj ET");
    page(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()).into_bytes())
}

/// A page whose content becomes 512 MiB.
pub(crate) fn inflating_pdf() -> Vec<u8> {
    static FILE: LazyLock<Vec<u8>> = LazyLock::new(inflating);
    FILE.clone()
}

fn inflating() -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let chunk = vec![b'a'; 1 << 20];
    (0..512).for_each(|_| zlib.write_all(&chunk).unwrap());
    let packed = zlib.finish().unwrap();
    let head = format!("<< /Length {} /Filter /FlateDecode >>\nstream\n", packed.len()).into_bytes();
    page([head, packed, b"\nendstream".to_vec()].concat())
}

/// An object of a million arrays within each other.
pub(crate) fn nested_pdf() -> Vec<u8> {
    page([vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat())
}

/// Pages that are each other's parents.
pub(crate) fn circular_pdf() -> Vec<u8> {
    of_objects(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 /Parent 3 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R >>".to_vec(),
    ])
}

/// Bytes that mean nothing, the same in each run.
pub(crate) fn garbage(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

fn page(content: Vec<u8>) -> Vec<u8> {
    of_objects(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R \
          /Resources << /Font << /F1 3 0 R >> >> >>"
            .to_vec(),
        content,
    ])
}

fn of_objects(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut offsets = Vec::new();
    for (n, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.extend(format!("{} 0 obj\n", n + 1).into_bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    let xref = file.len();
    let size = objects.len() + 1;
    file.extend(format!("xref\n0 {size}\n0000000000 65535 f \n").into_bytes());
    offsets.iter().for_each(|offset| file.extend(format!("{offset:010} 00000 n \n").into_bytes()));
    file.extend(format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n").into_bytes());
    file
}
